"""Texts on which every conversion of a sentence encoder is tried: other scripts, odd spaces, long words and long
texts are where tokenizers part ways.
"""

from __future__ import annotations

BATCHES: tuple[tuple[str, ...], ...] = (
    ("A ship lies at the pier.",),
    ("Two boats are moored in the harbour.", "Quarterly revenue grew by 4.5%.", "ok"),
    ("", " ", "?!", "a" * 100, "a" * 101),
    ("word " * 600, "short", "a long text of many words " * 20),
    ("Ein Café in Köln, größer als gestern.", "L'été à Orléans - déjà vu…", "“Quoted” — isn’t it?", "naïve résumé"),
    ("Привет, Ёжик!", "Ελληνικά: ΌΔΟΣ", "Tiếng Việt có dấu", "Zażółć gęślą jaźń", "İstanbul'da ŞİŞ"),
    ("漢字かな交じり文", "你好，世界！", "한국어 문장입니다", "हिन्दी में", "العَرَبِيَّة", "ภาษาไทย"),
    (
        "great🙂👍🏽",
        "🇩🇪 flag",
        "tab\tand\nnew line\r, nul\0within",
        "zero\u200bwidth soft\u00adhyphen",
        "\u3000wide\u00a0spaces\u2028",
    ),
    ("[CLS] spelt [SEP] tokens [MASK]", "foo.bar@example.com costs $5 ~^`|<>=+", "½ ² ℃ ™ ﬁne", "A\u0301 combining"),
)
