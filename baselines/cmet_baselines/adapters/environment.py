"""Selects the environment variables that an outside method receives: no credentials of the user, unless they are named.

An outside method is code of others. It receives what Python, CUDA and the libraries of such methods need, and what its
TOML file adds: `environment` sets variables, and `environment_from` names variables to pass on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Variables that are passed on. `X*` means every name that begins with X.
ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TZ", "LANG", "LANGUAGE", "LC_*", "TMPDIR", "TMP", "TEMP"),
    *("LD_LIBRARY_PATH", "DYLD_*", "PYTHON*", "VIRTUAL_ENV", "CONDA*", "MAMBA*", "XDG_*", "SSL_CERT_*"),
    *("CUDA_*", "NVIDIA_*", "CUDNN_*", "NCCL_*", "ROCR_*", "HIP_*", "DISPLAY", "EGL_*", "MESA_*", "PYOPENGL_*"),
    *("OMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "VECLIB_*", "TF_*", "XLA_*"),
    *("TORCH*", "PYTORCH_*", "TRITON_*", "HF_HOME", "HF_HUB_*", "TRANSFORMERS_*", "MPLCONFIGDIR", "NUMBA_*"),
)
_ALLOWED = re.compile(
    "|".join(re.escape(name[:-1]) + ".*" if name.endswith("*") else re.escape(name) for name in ALLOWED)
)
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|(?:^|_)(?:API)?KEY(?:_|$)", re.IGNORECASE)


def method_environment(
    ours: Mapping[str, str], added: Mapping[str, str], passed_on: Iterable[str] = ()
) -> dict[str, str]:
    """The environment of a method.

    Args:
        ours: the environment of this process.
        added: variables that the method's TOML file sets.
        passed_on: names of variables of `ours` that the method receives, too. Names that are not set are left out.
    """
    allowed = {name: value for name, value in ours.items() if _ALLOWED.fullmatch(name) and not _SECRET.search(name)}
    if "LD_LIBRARY_PATH" in allowed:  # the import of cv2 adds folders of its own package for this process
        folders = [folder for folder in allowed["LD_LIBRARY_PATH"].split(":") if folder and "/cv2/../" not in folder]
        allowed["LD_LIBRARY_PATH"] = ":".join(folders)
    return allowed | {name: ours[name] for name in passed_on if name in ours} | dict(added)
