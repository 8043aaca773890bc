"""The example of docs/how_to/add_a_setting.md is a valid setting."""

import re
from pathlib import Path

from cmet_eval.protocol.setting import get_setting

PAGE = Path(__file__).parents[2] / "docs" / "how_to" / "add_a_setting.md"


def test_the_example_of_the_page_is_valid(tmp_path: Path) -> None:
    found = re.search(r"```toml\n# (?P<name>\S+)\n.*?```", PAGE.read_text(), re.DOTALL)
    assert found
    path = tmp_path / found["name"]
    path.write_text(found[0].removeprefix("```toml\n").removesuffix("```"))
    setting = get_setting(str(path))
    assert setting.name == path.stem
    assert setting.target_emotions == ("angry",)
