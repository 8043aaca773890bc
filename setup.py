"""Names what a wheel holds: the packages of every room, and the catalogue of methods, which is data beside its code."""

from setuptools import find_namespace_packages, setup

ROOMS = (".", "pipelines", "metrics", "baselines", "leaderboards")
OWN = ["talking_face*", "embedded_corpus*", "cmet_*"]

packages: list[str] = []
package_dir: dict[str, str] = {}
for room in ROOMS:
    for name in find_namespace_packages(room, include=OWN):
        packages.append(name)
        package_dir[name] = name.replace(".", "/") if room == "." else f"{room}/{name.replace('.', '/')}"
packages.append("cmet_baselines.catalogue")
package_dir["cmet_baselines.catalogue"] = "baselines/catalogue"

setup(packages=packages, package_dir=package_dir)
