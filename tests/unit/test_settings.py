import pytest

from shop.settings import SettingsError, load_settings


@pytest.mark.parametrize("token", ["", "  ", " t", "t\n"])
def test_an_admin_token_that_is_none_or_cannot_be_sent_is_refused(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_ADMIN_TOKEN", token)
    with pytest.raises(SettingsError, match="SHOP_ADMIN_TOKEN: is empty"):
        load_settings()
