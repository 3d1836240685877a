"""Keys, private keys and e-mail addresses: what the detector finds and what it leaves alone.

Every key is made up, and put together from pieces, so that this file holds none.
"""

from __future__ import annotations

import pytest

from k9_broker.sensitive import Category
from sensitive_cases import assert_found, assert_left_alone, cases

MIXED = "aB3dE5gH7jK9mN1pQ2sT4vW6yZ8bC0dF"
"""32 letters and digits that look drawn at random; `HEX` likewise."""
HEX = "3f9a1c7e5b2d8046af13ce97b5d20864"
LONG = MIXED + "xR7uL5tPq8wJ" + MIXED + "nV4kS6hG"
S = "s" + "k"

KEYS = [
    S + "-proj-" + LONG,
    S + "-" + MIXED + "aB3dE5gH7jK9mN1p",
    S + "-ant-" + "api03-" + LONG,
    S + "-or-v1-" + HEX + HEX,
    S + "_live_" + MIXED,
    "r" + "k_live_" + MIXED,
    "AK" + "IA" + "Q3EGRXMT7VJ2LKWB",
    "AS" + "IA" + "Q3EGRXMT7VJ2LKWB",
    "gh" + "p_" + MIXED + "x7Rq",
    "gh" + "o_" + MIXED + "x7Rq",
    "gh" + "s_" + MIXED + "x7Rq",
    "github" + "_pat_" + MIXED[:22] + "_" + LONG[:59],
    "gl" + "pat-" + MIXED[:20],
    "xo" + "xb-" + "2148362917-3629174826-" + MIXED[:24],
    "xo" + "xp-" + "2148362917-3629174826-" + HEX,
    "https://hooks.slack.com/" + "services/T" + "02QX7LM9" + "/B" + "03RT8KN2" + "/" + MIXED[:24],
    "AI" + "za" + MIXED + "x_R",
    "hf" + "_" + MIXED + "xQ",
    "np" + "m_" + MIXED + "x7Rq",
    "py" + "pi-" + "AgEIcHlwaS5vcmc" + LONG,
    "SG" + "." + MIXED[:22] + "." + LONG[:43],
    "SK" + HEX,
    "7129384" + "650:" + "AAH" + MIXED,
    "gs" + "k_" + LONG[:52],
    "da" + "pi" + HEX,
    "dop" + "_v1_" + HEX + HEX,
    "shp" + "at_" + HEX,
    "GOC" + "SPX-" + MIXED[:28],
    "ey" + "JhbGciOiJIUzI1NiJ9.ey" + "JzdWIiOiI3MTI5Mzg0NjUwIn0." + MIXED,
    "Authorization: " + "Bearer " + MIXED,
    "curl -H 'authorization: " + "bearer " + HEX + "'",
    "Authorization: " + "Basic " + "YWxhZGRpbjpvcGVuc2VzYW1l" + "Mg==",
    "postgres://shop:" + "tR4ub7dor" + "@db.internal:5432/shop",
    "https://me:" + "tR4ub7dor" + "@git.host.org/x.git",
    "AccountName=shop;" + "Account" + "Key=" + (LONG + MIXED)[:86] + "==",
    "https://shop.blob.core.windows.net/a?sv=2022-11-02&" + "sig=" + LONG[:43] + "%3D",
    "aws_secret" + "_access_key = " + LONG[:40],
    "API_" + "KEY=" + HEX,
    '{"client_' + 'secret": "' + MIXED + '"}',
    "DB_" + "PASSWORD=" + "tR4ub7dor",
    "pass" + "word: " + "tR4ub&dor",
    "my wifi pass" + "word is " + "blueGiraffe42!",
    '"pass' + 'wd": "' + "kq7#Lz" + '"',
    "Mein Pass" + "wort lautet".replace("lautet", "ist") + " Zug7Fahrt!9",
    "pass" + "word = 'S3(r)et[7]x'",
    "密码" + "：" + "Wg7#kq2zL",
    "пароль" + ": " + "Wg7#kq2zL",
]
NO_KEYS = [
    "What is an sk-learn pipeline, and how do I pickle it?",
    S + "-" + "x" * 40,
    S + "-your-api-key-goes-here-1234567890",
    "AK" + "IA" + "IOSFODNN7" + "EXAMPLE",
    "gh" + "p_" + "x" * 36,
    "ghp_ is the prefix of a token",
    "hf_hub_download_and_cache_this_file_now",
    "task-force-1-report-2024-final-version-b",
    "d41d8cd98f00b204e9800998ecf8427e",
    "123e4567-e89b-42d3-a456-426614174000",
    "password = get_password()",
    "password: string;",
    "const password = process.env.DB_PASSWORD",
    "password = 'password123'",
    "password = '${DB_PASSWORD_2}'",
    "api_key = 'YOUR_API_KEY'",
    "token = tokens[index + 1]",
    "token = next_token_from_stream",
    "secret: ${{ secrets.DEPLOY_TOKEN_2 }}",
    "the secret is to keep practising every day",
    "your password must contain at least 8 characters",
    "Authorization: Bearer <your token>",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_12345",
    "postgres://user:password@localhost/db",
    "postgres://user:${PASSWORD}@localhost/db",
    "http://localhost:8080/@scope/package",
    "------------------------------------------------",
    "eyJ is how a JWT begins",
    "https://example.com/a/very-long-path-with-many-words-in-it-2024",
]
B64 = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7" + MIXED
BEGIN = "-----BEG" + "IN "
PRIVATE_KEYS = [
    BEGIN + "PRIVATE KEY-----\n" + B64,
    BEGIN + "RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC," + HEX + "\n\n" + B64,
    BEGIN + "OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA" + B64,
    BEGIN + "PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\nlQOYBF" + B64,
    BEGIN + "EC PRIVATE KEY-----\\n" + B64[:30] + "\\n" + B64[30:],
    "> " + BEGIN + "PRIVATE KEY-----\n> " + B64[:40] + "\n> " + B64[40:],
    BEGIN.replace(" ", "\n") + "PRIVATE\nKEY-----\r\n" + B64,
    "AGE-SECRET-" + "KEY-1" + "QPZRY9X8GF" * 5 + "QPZRY9X8",
    "Private" + "Key = " + (B64 + MIXED)[:42] + "A=",
    '{"kty":"EC","crv":"P-256","d":"' + LONG[:43] + '"}',
    "Private-" + "Lines: 14\n" + B64,
]
NO_PRIVATE_KEYS = [
    "How do I convert a file that begins with " + BEGIN + "RSA PRIVATE KEY----- to PKCS8?",
    BEGIN + "PUBLIC KEY-----\n" + B64,
    BEGIN + "CERTIFICATE-----\n" + B64,
    BEGIN + "PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    "Keep the PRIVATE parts of a class private",
    '{"kty":"EC","crv":"P-256","x":"' + LONG[:43] + '"}',
]
EMAILS = [
    "write to maria.lopez@uni-hamburg.de please",
    "<o'neil+news@sub.domain.co.uk>",
    "联系我：zhang.wei@163.com谢谢",
    "иван@почта.рф",
    "maria\u200b.lopez@\u200buni-hamburg.de",
    "ＭＡＲＩＡ＠ｕｎｉ－ｈａｍｂｕｒｇ．ｄｅ",
    "mailto:kim@navercorp.com?subject=x",
    "maria.lopez [at] uni-hamburg [dot] de",
    "maria.lopez (at) uni-hamburg.de",
    "a@b.io",
]
NO_EMAILS = [
    "@app.route('/x')",
    "user@example.com",
    "someone@sub.example.org",
    "you@yourdomain.com",
    "root@localhost",
    "git@github.com:org/repo.git",
    "npm i react@18.2.0",
    "icon@2x.png",
    "dompurify@2.3.3/dist/purify.es.min.js",
    "meet me @ noon. Bring tea",
    "foo @bar.baz",
    "x@y",
    "a@",
]
FOUND = {Category.API_KEY: KEYS, Category.PRIVATE_KEY: PRIVATE_KEYS, Category.EMAIL: EMAILS}
LEFT = {Category.API_KEY: NO_KEYS, Category.PRIVATE_KEY: NO_PRIVATE_KEYS, Category.EMAIL: NO_EMAILS}


@pytest.mark.parametrize(("category", "text"), cases(FOUND))
def test_found(category: Category, text: str) -> None:
    assert_found(category, text)


@pytest.mark.parametrize(("category", "text"), cases(LEFT))
def test_left_alone(category: Category, text: str) -> None:
    assert_left_alone(category, text)
