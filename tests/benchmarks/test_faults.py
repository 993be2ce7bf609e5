"""The command that lists faults of a network."""

import pytest

from benchmarks import faults


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("loss of 7 %", 2)])
def test_command_names_every_fault(
    argument: str, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["faults", argument])
    with pytest.raises(SystemExit) as ended:
        faults.main()
    assert ended.value.code == status
    said = " ".join("".join(capsys.readouterr()).split())
    assert all(name in said for name in faults.FAULTS)
