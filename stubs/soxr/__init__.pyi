from typing import Literal

import numpy as np
from numpy.typing import NDArray

class ResampleStream:
    def __init__(
        self,
        in_rate: float,
        out_rate: float,
        num_channels: int,
        dtype: Literal["float32"] = "float32",
        quality: Literal["QQ", "LQ", "MQ", "HQ", "VHQ"] = "HQ",
    ) -> None: ...
    def resample_chunk(self, x: NDArray[np.float32], last: bool = False) -> NDArray[np.float32]: ...
    def delay(self) -> float: ...
    def clear(self) -> None: ...

def resample(
    x: NDArray[np.float64],
    in_rate: float,
    out_rate: float,
    quality: Literal["QQ", "LQ", "MQ", "HQ", "VHQ"] = "HQ",
) -> NDArray[np.float64]: ...
