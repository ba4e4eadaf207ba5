"""Hashes of one password, made by others: passlib 1.7.4, Werkzeug 3.1, Django 5.2, Firebase.

None of them is made by code of ours, and all but one at a cost that tests can bear.
"""

MADE_BY_OTHERS = "correct horse battery staple"

# By its name: the kind that we say it is, and the stored form.
FOREIGN: dict[str, tuple[str, str]] = {
    "passlib scrypt": (
        "scrypt",
        "$scrypt$ln=4,r=8,p=1$MCYk5Pzf+38PASBkzHmvFQ$JwnD8ik8PHYiT7pRtiGE7kMuz1LJy7S0JStZParlMgc",
    ),
    "passlib scrypt p": (
        "scrypt",
        "$scrypt$ln=5,r=4,p=3$utcag1AKwZhzLuW8d+4dIw$wZ8uhbII1kW7mP7OAABefrn8ivJj2Y9E6I3MaHmiprI",
    ),
    "passlib pbkdf2-sha1": (
        "pbkdf2-sha1",
        "$pbkdf2$11$2Vvr/X8PYez9PyfEWKt1Tg$HBcX.aim8LoKNfXJymIAMy6/gww",
    ),
    "passlib pbkdf2-sha256": (
        "pbkdf2-sha256",
        "$pbkdf2-sha256$12$Ycy51xoD4DwHYCzFmDOGUA$xRAYGMN5J5r6ngb2.XV6uDu8Zc4c6SEeD19jc1wuaMw",
    ),
    "passlib pbkdf2-sha512": (
        "pbkdf2-sha512",
        (
            "$pbkdf2-sha512$13$O6dUyvm/97435jwHYEwJAQ$AuO1jTzgYuSaq/wSAs4QI2up18a2N1r"
            "Y.EV44xP83swUttDTsG8jniWv1NFIhgSoaqwABC40N3D8TDV/dlkxsw"
        ),
    ),
    "passlib bcrypt-sha256 v2": (
        "bcrypt-sha256",
        "$bcrypt-sha256$v=2,t=2b,r=4$3qFFmK4LEe3rHsB.bKQzau$XWRNlTM6om6MxyHsAyaoV7Z3zquoqH2",
    ),
    "passlib bcrypt-sha256 v1": (
        "bcrypt-sha256",
        "$bcrypt-sha256$2b,5$FtEIvv3yLzjhQwb4GZf10u$4jwI/NmdRBPgoFUmgD4quVTwbpVVJYe",
    ),
    "passlib bcrypt": (
        "bcrypt",
        "$2b$04$/QTSiMkllNTzsrbI.Mu5bu9Obkqajk09ixQJAsF6XpIDiUIAraTfi",
    ),
    "passlib argon2i": (
        "argon2i",
        (
            "$argon2i$v=19$m=64,t=1,p=1$uJey9r4XAgDA+N87hxACIA$9ihSc9icCEWpQBZqMJ+EFw"
            "LNnnKWg6/T+QX8sOssapM"
        ),
    ),
    "passlib argon2d": (
        "argon2d",
        (
            "$argon2d$v=19$m=64,t=1,p=1$HmPM2VsLoTRGCEEIoTQmJA$fWNW7KSjh0KZ7zMmfD4Tez"
            "w8GO+lS/ku4FrURI35tF8"
        ),
    ),
    "werkzeug scrypt": (
        "scrypt",
        (
            "scrypt:1024:8:1$SC2wKTrLXxnvHtk5$f844343f5dd0f75802cf71e3abbd373e883de8e"
            "d0c5b955777a2c1b6f222befaa7cf75dd394a679d258ab7983a07dfc16099ed59dfff6ec"
            "dc44ccb3203e08fb3"
        ),
    ),
    "werkzeug scrypt default": (
        "scrypt",
        (
            "scrypt:32768:8:1$2oSOZ4otN9MTTyFZ$b392b3c766ec14473ee24e27ab23a8414e73f4"
            "00f3a1f64f31f41647d2181df642655944a9d2e069cd7051635151f61e1b0d65d69b0443"
            "08f8959025d0166411"
        ),
    ),
    "werkzeug pbkdf2 sha256": (
        "pbkdf2-sha256",
        (
            "pbkdf2:sha256:14$k2rb00DTmHxYYilz$4cfa34d58c752e0f90340fbdfec1d83e63e871"
            "ca6f2eaf28ebb645f0a4d651e6"
        ),
    ),
    "werkzeug pbkdf2 sha1": (
        "pbkdf2-sha1",
        "pbkdf2:sha1:15$FZjzg7hiGnlHxu0F$54bcbdc511916796622a7b94881ae90fd4eca31b",
    ),
    "werkzeug pbkdf2 sha512": (
        "pbkdf2-sha512",
        (
            "pbkdf2:sha512:16$GDHFAVWEzsfkUjcs$2e7dc0d1f6bed7ad5add225f41a0a0510fcbb7"
            "ed6dd1d46f7949a74bb48606944b074d4875fa10e4557d6a3a5ca56bfefe4496d58e134c"
            "892d9861ac6a50ea7b"
        ),
    ),
    "django pbkdf2_sha256": (
        "pbkdf2-sha256",
        "pbkdf2_sha256$17$seasalt1$2m5hoRi8B5oeB06TRJ3JZC0MSaudM4zrGwfYKmWrxVM=",
    ),
    "django pbkdf2_sha1": (
        "pbkdf2-sha1",
        "pbkdf2_sha1$18$seasalt1$u4SiuDCe42ACUY3OwDYM1EGaFIQ=",
    ),
    "django argon2": (
        "argon2id",
        "argon2$argon2id$v=19$m=64,t=1,p=1$c2Vhc2FsdDE$KE/coUHmgw5MQtPIzMgHPmQlc4hpgBOIF6jDNpmbE9A",
    ),
    "django bcrypt_sha256": (
        "bcrypt-sha256",
        "bcrypt_sha256$$2b$04$Ltx4Q2P0zw61TMoiAGa8tOjLYoMEoAXwd2Bsh/xEgaIuGDsDFEASS",
    ),
    "django bcrypt": (
        "bcrypt",
        "bcrypt$$2b$04$lo7gLQp2iBhNM0TjD8ykPOyt2CsA8ryX62frFaP9wsAPUYKraM.4u",
    ),
    "django scrypt": (
        "scrypt",
        (
            "scrypt$32$seasalt1$8$5$gUO3wb4AsGzwFB9OYNkYtsV1gPLqevpaP0wvP2UPbOS+XqjV6"
            "rEWNwIqZsVC1lWsxUYMsaxVv0/UrMlMmN8wRg=="
        ),
    ),
}

# Fast hashes, and those of nobody: never accepted.
REFUSED = {
    "django md5": "md5$seasalt1$257437a7957a8cfa017238df74737c2f",
    "django unusable": "!d5v6bTYWMe65rGQ8RT0ZmN54w0mVq6X0u97L0SW7",
}

# The example in the README of github.com/firebase/scrypt.
FIREBASE_PASSWORD = "user1password"
FIREBASE_KEY = (
    "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA=="
)
FIREBASE_SEPARATOR = "Bw=="
FIREBASE_ROUNDS, FIREBASE_MEM_COST = 8, 14
FIREBASE_SALT = "42xEC+ixf3L2lw=="
FIREBASE_HASH = (
    "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="
)
