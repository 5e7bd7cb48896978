"Data files of every bad kind: each gives one clear line that names it, or the right arrays; none hangs or passes unnoticed."
import os
import socket
import warnings
from pathlib import Path
from types import SimpleNamespace

import aeon.datasets
import numpy as np
import pytest

from tst_mi.data import find_dataset, list_datasets, load_dataset, read_ts, resample_series

HEAD = "@problemName P\n@timeStamps false\n@missing false\n@univariate true\n@equalLength true\n@classLabel true a b\n@data\n"
TWO = HEAD.replace("@univariate true", "@univariate false\n@dimensions 2")
UNEQUAL = HEAD.replace("@equalLength true", "@equalLength false")
ROWS = "1,2,3:a\n4,5,7:b\n2,2,3:a\n4,6,7:b\n"
GOOD = HEAD + ROWS


def numbered(*classes): return HEAD.replace("true a b", "true " + " ".join(classes))


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    "Nothing but what a test writes, and no network."
    def unreachable(*args, **kwargs): raise ConnectionError("no network in a test")
    monkeypatch.setenv("TST_MI_CACHE", str(tmp_path/"cache"))
    monkeypatch.delenv("TST_MI_DATA", raising=False)
    monkeypatch.setattr(aeon.datasets, "load_classification", unreachable)


def write(folder, train=GOOD, test=GOOD, name="P"):
    "Both files of a dataset; text, or bytes as they are; None: no such file."
    (folder/name).mkdir(parents=True, exist_ok=True)
    for split, content in (("TRAIN", train), ("TEST", test)):
        if content is None: continue
        (folder/name/f"{name}_{split}.ts").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(action, *words):
    "One clear line of ours that holds all words."
    with pytest.raises((ValueError, OSError)) as caught: action()
    message = str(caught.value)
    assert type(caught.value) in (ValueError, OSError), f"an error of another's: {caught.value!r}"
    assert "\n" not in message and len(message) < 6000
    for word in words: assert word in message, f"{word!r} is not in: {message}"
    return message


BAD = {  # case: training file, test file, words of the message
    "empty": ("", GOOD, "P_TRAIN.ts is empty"),
    "blank": ("\n \n\n", GOOD, "P_TRAIN.ts is not a .ts file"),
    "header only": (HEAD, GOOD, "P_TRAIN.ts has no instances after @data"),
    "header without data line": (HEAD.replace("@data\n", ""), GOOD, "P_TRAIN.ts", "no line @data", "'@problemName P'"),
    "header cut": (HEAD[:40], GOOD, "P_TRAIN.ts", "no line @data"),
    "html": (GOOD, "<!DOCTYPE html>\n<html>\n<body>404</body></html>\n", "P_TEST.ts is not a .ts file", "'<!DOCTYPE html>'"),
    "html on one long line": ("<html>" + "x"*100_000, GOOD, "P_TRAIN.ts is not a .ts file", "<html>xxx", "…"),
    "csv": ("1,2,3,a\n4,5,6,b\n", GOOD, "P_TRAIN.ts is not a .ts file", "'1,2,3,a'"),
    "json": ('{"x": [1, 2]}', GOOD, "P_TRAIN.ts is not a .ts file", '{"x"'),
    "arff": ("@relation P\n@attribute t1 numeric\n@data\n1,2,a\n", GOOD, "P_TRAIN.ts", "no line '@classLabel true'"),
    "zip": (b"PK\x03\x04\xff\xfe\x9c", GOOD, "P_TRAIN.ts is not text in UTF-8"),
    "windows-1252": (("# caf\xe9\n" + GOOD).encode("cp1252"), GOOD, "P_TRAIN.ts is not text in UTF-8 (byte 0xe9 in line 1)", "save it as UTF-8"),
    "windows-1252 in a row": (HEAD.encode() + b"1,2,3:a\n1,2,3:\x92\n", GOOD, "byte 0x92 in line 9"),
    "utf-8 cut at the end": (GOOD.encode() + "é".encode()[:1], GOOD, "P_TRAIN.ts"),
    "utf-16": (GOOD.encode("utf-16"), GOOD, "P_TRAIN.ts"),
    "NUL bytes": (GOOD.encode() + bytes(5000), GOOD, "P_TRAIN.ts holds NUL bytes (line 12)"),
    "NUL behind a label": (GOOD.replace("a\n2", "a\0\n2", 1).replace("4,5,7:b", "4,5,7:b\0"), GOOD, "P_TRAIN.ts holds NUL bytes"),
    "only NUL bytes": (bytes(3_000_000), GOOD, "P_TRAIN.ts holds NUL bytes"),
    "no class line": (GOOD.replace("@classLabel true a b\n", ""), GOOD, "P_TRAIN.ts", "no line '@classLabel true'"),
    "class line false": (GOOD.replace("true a b", "false"), GOOD, "P_TRAIN.ts", "regression or clustering"),
    "class line without classes": (GOOD.replace("true a b", "true"), GOOD, "P_TRAIN.ts", "names of the classes"),
    "class line without anything": (GOOD.replace("@classLabel true a b", "@classLabel"), GOOD, "P_TRAIN.ts", "names of the classes"),
    "regression": (GOOD.replace("classLabel true a b", "targetLabel true"), GOOD, "P_TRAIN.ts", "regression or clustering"),
    "classes that differ in case": (numbered("a", "A") + ROWS, GOOD, "P_TRAIN.ts", "'a' and 'A' differ only in upper and lower case"),
    "problem without a name": (GOOD.replace("Name P", "Name"), GOOD, "P_TRAIN.ts", "@problemName names nothing"),
    "flag without a value": (GOOD.replace("@equalLength true", "@equalLength"), GOOD, "P_TRAIN.ts", "@equallength says ''; it must be true or false"),
    "flag of another kind": (GOOD.replace("@equalLength true", "@equalLength 3"), GOOD, "P_TRAIN.ts", "@equallength says '3'"),
    "data line with a value": (GOOD.replace("@data", "@data here"), GOOD, "P_TRAIN.ts cannot be read as a .ts file", "data tag"),
    "time stamps": (HEAD.replace("Stamps false", "Stamps true") + "(0.0,-1.5),(1.0,2.5):a\n", GOOD, "P_TRAIN.ts has time stamps"),
    "cut before the label": (GOOD[:-3], GOOD, "P_TRAIN.ts cannot be read", "row 4 after @data has no ':'"),
    "cut at the label": (GOOD[:-2], GOOD, "P_TRAIN.ts: row 4 after @data has the label ''", "cut short or lacks its label"),
    "cut within values": (GOOD, GOOD[:-4], "P_TEST.ts cannot be read", "row 4 after @data"),
    "cut within values of unequal lengths": (UNEQUAL + ROWS[:-4], GOOD, "P_TRAIN.ts cannot be read", "row 4 after @data"),
    "no label in two channels": (TWO + "1,2:3,4:a\n1,2:3,4\n", GOOD, "P_TRAIN.ts cannot be read", "row 2 after @data has 1 channels where row 1 has 2"),
    "no label at all": (HEAD + "1,2,3\n4,5,6\n", GOOD, "P_TRAIN.ts: row 1 after @data", "'1,2,3'", "lacks its label"),
    "no label in any row of two channels": (TWO + "1,2:3,4\n5,6:7,8\n", GOOD, "P_TRAIN.ts: row 1 after @data", "'3,4'", "lacks its label"),
    "a label that the header lacks": (GOOD, HEAD + "1,2,3:a\n1,2,3:c\n", "P_TEST.ts: row 2 after @data has the label 'c'", "none of the header's 2 classes ('a, b')"),
    "a missing label": (HEAD + "1,2,3:a\n1,2,3:?\n", GOOD, "P_TRAIN.ts: row 2 after @data has the label 'NaN'"),
    "a label of two words": (numbered("walking", "fast") + "1,2,3:walking fast\n", GOOD, "P_TRAIN.ts: row 1", "'walking fast'"),
    "a number unlike the header's": (numbered("1", "2") + "1,2,3:1\n1,2,3:2.0\n", GOOD, "P_TRAIN.ts: row 2", "'2.0' and '2' are the same number written in two ways"),
    "numbers that differ between splits": (numbered("1", "2") + "1,2,3:1\n1,2,3:2\n", numbered("1.0", "2.0") + "1,2,3:1.0\n",
                                           "P: the labels '1' and '1.0' are the same number written in two ways"),
    "numbers that differ within a split": (numbered("1", "01") + "1,2,3:1\n1,2,3:01\n", numbered("1") + "1,2,3:1\n", "P: the labels '01' and '1'"),
    "a class that only the test split has": (numbered("a", "b", "c") + ROWS, numbered("a", "b", "c") + "1,2,3:c\n", "P: the test split has classes", "['c']"),
    "a single class": (HEAD + "1,2,3:a\n3,2,1:a\n", HEAD + "1,2,3:a\n", "P: the training split has a single class, 'a'"),
    "an empty row": (HEAD + "1,2,3:a\n\n1,2,3:b\n", GOOD, "P_TRAIN.ts cannot be read", "row 2 after @data is empty"),
    "an empty row at the end": (GOOD + "\n", GOOD, "P_TRAIN.ts cannot be read", "row 5 after @data is empty"),
    "a word among values": (HEAD + "1,2,3:a\n1,two,3:b\n", GOOD, "row 2 after @data holds 'two', which is not a number"),
    "a very long word": (HEAD + f"1,{'x'*50_000},3:b\n", GOOD, "row 1 after @data holds 'xxx", "…"),
    "an empty value": (HEAD + "1,,3:a\n", GOOD, "row 1 after @data holds ''"),
    "a colon too many": (HEAD + "1,2,3:a:b\n", GOOD, "row 1 after @data holds 'a', which is not a number"),
    "a comment among rows": (HEAD + "1,2,3:a\n# more\n", GOOD, "P_TRAIN.ts cannot be read", "row 2 after @data"),
    "rows of other lengths": (HEAD + "1,2,3:a\n1,2:b\n", GOOD, "row 2 after @data has a channel of 2 time steps where 3 are expected"),
    "channels of other lengths": (TWO.replace("equalLength true", "equalLength false") + "1,2:3,4,5:a\n", GOOD, "row 1 after @data has a channel of 3 time steps"),
    "mixed channels": (TWO + "1,2:3,4:a\n1,2:b\n", GOOD, "row 2 after @data has 1 channels where row 1 has 2"),
    "channels against the header": (HEAD + "1,2:3,4:a\n1,2:3,4:b\n", GOOD, "P_TRAIN.ts cannot be read", "row 1 after @data has 2 channels", "@univariate true"),
    "other channels in the test split": (GOOD, TWO + "1,2:3,4:a\n1,2:3,4:b\n", "P: the training split has [1] channels and the test split [2]"),
    "infinite": (HEAD + "1,2,3:a\n1,inf,3:b\n", GOOD, "P_TRAIN.ts holds infinite values in 1 of 2", "row 2 after @data"),
    "too large for any float": (HEAD + "1,2,3:a\n1,1e999,3:b\n", GOOD, "P_TRAIN.ts holds infinite values"),
    "no value in a channel": (HEAD + "?,?,?:a\nNaN,nan,?:b\n", GOOD, "P: channels [0]", "no value"),
    "one time step": (HEAD + "1:a\n2:b\n", HEAD + "1:a\n", "P: its training series have a single time step"),
    "a test value beyond 32 bits": (GOOD, HEAD + "1,1e200,3:a\n", "P: the values of channels [0]", "1e+200", "32-bit"),
    "the largest floats": (HEAD + "-1.7e308,1.7e308,0:a\n1.7e308,-1.7e308,0:b\n"*200, HEAD + "1,1e400,3:a\n", "P_TEST.ts holds infinite"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_gives_one_clear_line(tmp_path, case):
    train, test, *words = BAD[case]
    before = sorted(write(tmp_path/"own", train, test).rglob("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: load_dataset("P", data_dir=tmp_path/"own"), *words)
    assert sorted((tmp_path/"own").rglob("*")) == before and not (tmp_path/"cache").exists(), "something was left behind"
    assert list_datasets(tmp_path/"own")["P"] == "data_dir", "a broken set must not break the listing"


FINE = {  # case: training file that must be read as GOOD is
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "byte order mark before the class line": b"\xef\xbb\xbf" + ("@classLabel true a b\n" + GOOD.replace("@classLabel true a b\n", "")).encode(),
    "windows line ends": GOOD.replace("\n", "\r\n"),
    "old mac line ends": GOOD.replace("\n", "\r"),
    "no line end at the end": GOOD[:-1],
    "capitals and spaces around labels": GOOD.replace(":a", ": A ").replace(":b", ":B"),
    "capitals in the header": GOOD.replace("true a b", "TRUE A\t B").replace("@data", "@DaTa "),
    "comments in utf-8": "# größer\n" + GOOD,
    "classes without instances": GOOD.replace("true a b", "true a b c"),
    "exponents": GOOD.replace("1,2,3", "1e0,+2.,.3E1"),
}


@pytest.mark.parametrize("case", FINE)
def test_what_is_no_fault_is_read(tmp_path, case):
    wanted = load_dataset("P", data_dir=write(tmp_path/"plain"))
    found = load_dataset("P", data_dir=write(tmp_path/"own", FINE[case]))
    assert np.array_equal(found.X_train, wanted.X_train) and np.array_equal(found.y_train, wanted.y_train)
    assert found.classes == wanted.classes == ("a", "b")


def test_class_names_are_those_of_the_header(tmp_path):
    head = numbered("Banana", "what?", "nan")
    data = load_dataset("P", data_dir=write(tmp_path, head + "1,2,3:Banana\n1,2,4:what?\n1,2,5:nan\n", head + "1,2,3:banana\n"))
    assert data.classes == ("banana", "nan", "what?") and data.y_test.tolist() == [0]
    head = numbered("1", "2", "nan")   # no order by numbers where one is none
    data = load_dataset("P", data_dir=write(tmp_path, head + "1,2,3:nan\n1,2,4:2\n1,2,5:1\n", head + "1,2,3:1\n"))
    assert data.classes == ("1", "2", "nan") and data.y_train.tolist() == [2, 1, 0]


def test_a_file_of_another_name(tmp_path):
    (tmp_path/"P_TRAIN").write_text(GOOD)
    (tmp_path/"P_TRAIN.ts").write_text(HEAD + "7,8,9:b\n")   # a reader that completes names would take this one
    refused(lambda: read_ts(tmp_path/"P_TRAIN"), "P_TRAIN is not a .ts file by its name; it must end in .ts")


def test_no_damage_passes_as_another_error(tmp_path):
    "Bytes changed, cut, doubled and moved about at random."
    rng = np.random.default_rng(0)
    bytes_seen = list(dict.fromkeys(GOOD.encode() + bytes([0, 10, 13, 32, 35, 58, 63, 64, 95, 0xE9, 0xFF]) + b"naif-e"))
    loaded = 0
    for _ in range(250):
        text = list(TWO.encode() + b"1,2:3,4:a\n5,?:7,8:b\n" if rng.random() < .3 else GOOD.encode())
        for _ in range(rng.integers(1, 5)):
            i = rng.integers(len(text))
            if rng.random() < .5: i = rng.integers(len(HEAD) - 20, len(text) + 1) - 1
            change = rng.integers(4)
            if change == 0: text[i:i + 1] = [rng.choice(bytes_seen)]
            if change == 1: del text[i:i + rng.integers(1, 9)]
            if change == 2: text[i:i] = text[i:i + rng.integers(1, 30)]
            if change == 3: text[i:i] = [rng.choice(bytes_seen)]
        write(tmp_path, bytes(text), bytes(text))
        try: data = load_dataset("P", data_dir=tmp_path)
        except (ValueError, OSError) as e:
            assert type(e) in (ValueError, OSError) and "\n" not in str(e) and "P" in str(e), repr(e)
            continue
        loaded += 1
        assert set(data.classes) <= set(bytes(text).decode("utf-8-sig").lower().split("@classlabel")[-1].split("\n")[0].split())
        assert np.isfinite(data.X_train).all() and len(data.classes) > 1
    assert 10 < loaded < 200


# ------------------------------------------------------------------ what is no regular file

def make_pipe(path): os.mkfifo(path)
def make_folder(path): path.mkdir()
def make_device(path): path.symlink_to("/dev/zero")
def make_dangling(path): path.symlink_to("nowhere")
def make_nothing(path): pass


def make_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)   # a socket's path must be short
    here = os.getcwd()
    try:
        os.chdir(folder)
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)
        os.close(folder)


KINDS = {make_pipe: "is a named pipe, not a regular file", make_folder: "is a folder, not a regular file", make_device: "is a device, not a regular file",
         make_dangling: "is a link that leads nowhere", make_nothing: "is missing", make_socket: "is a socket, not a regular file"}


@pytest.mark.parametrize("split", ["TRAIN", "TEST"])
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("name", ["P", "JapaneseVowels"])
def test_only_regular_files_count(tmp_path, monkeypatch, make, split, name):
    contents = {"TRAIN": GOOD, "TEST": GOOD, split: None}
    write(tmp_path, contents["TRAIN"], contents["TEST"], name)
    path = tmp_path/name/f"{name}_{split}.ts"
    make(path)
    words = name, f"in {tmp_path/name} {path.name} {KINDS[make]}", "a dataset needs both"
    refused(lambda: load_dataset(name, data_dir=tmp_path), *words)
    refused(lambda: read_ts(path), str(path), KINDS[make])
    assert list_datasets(tmp_path).get(name) != "data_dir"
    monkeypatch.setenv("TST_MI_DATA", str(tmp_path))
    refused(lambda: load_dataset(name), *words)


def test_a_complete_set_found_first_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("TST_MI_DATA", str(write(tmp_path/"half", GOOD, None)))
    assert load_dataset("P", data_dir=write(tmp_path/"whole")).source == "data_dir"
    (tmp_path/"half"/"JapaneseVowels").mkdir()   # with neither file it says nothing
    assert find_dataset("JapaneseVowels")[0].startswith("bundled")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    (write(tmp_path)/"P"/"P_TRAIN.ts").chmod(0)
    refused(lambda: load_dataset("P", data_dir=tmp_path), "P_TRAIN.ts cannot be read (Permission denied)", "check its permissions")


def test_a_file_that_cannot_be_opened(tmp_path, monkeypatch):
    def deny(path, *args, **kwargs): raise PermissionError(13, "Permission denied", str(path))
    monkeypatch.setattr("tst_mi.data.open", deny, raising=False)
    refused(lambda: load_dataset("P", data_dir=write(tmp_path)), "P_TRAIN.ts cannot be read (Permission denied)", "check its permissions")


def test_a_path_of_any_letters(tmp_path):
    folder = write(tmp_path/"with spaces"/"größer – 数据")
    assert load_dataset("P", data_dir=folder).source == load_dataset("P", data_dir=str(folder)).source == "data_dir"
    assert load_dataset("Größe 1", data_dir=write(folder, name="Größe 1")).X_train.shape == (4, 3, 1)


def test_a_listing_survives_a_folder_of_rubbish(tmp_path):
    write(tmp_path, name="Good")
    write(tmp_path, "", b"\xff\xfe\0", "Broken")
    write(tmp_path, GOOD, None, "Half")
    write(tmp_path, name="two\nlines")
    for i, make in enumerate(KINDS):
        (tmp_path/f"N{i}").mkdir()
        make(tmp_path/f"N{i}"/f"N{i}_TRAIN.ts")
    (tmp_path/"loop").symlink_to("loop")
    (tmp_path/"X_TRAIN.ts").write_text("")
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    for split in (b"TRAIN", b"TEST"): open(os.fsencode(tmp_path) + b"/\xff/\xff_" + split + b".ts", "w").close()
    assert [name for name, where in list_datasets(tmp_path).items() if where == "data_dir"] == ["Broken", "Good"]
    assert load_dataset("Good", data_dir=tmp_path).source == "data_dir"


# ------------------------------------------------------------------ options

ODD = [2.5, 25.0, True, "25", "", [25], float("nan"), np.float64(3), b"25"]


@pytest.mark.parametrize("option", ["length", "max_length"])
@pytest.mark.parametrize("value", [*ODD, 0, 1, -3, np.int64(1)], ids=repr)
def test_odd_lengths(tmp_path, option, value):
    words = "at least 2 time steps" if type(value) in (int, np.int64) else "it must be a whole number of time steps"
    refused(lambda: load_dataset("P", data_dir=write(tmp_path), **{option: value}), f"{option} is ", words)
    if option == "length": refused(lambda: resample_series(np.zeros((3, 1)), value), "length is ", words)


def test_no_max_length(tmp_path):
    refused(lambda: load_dataset("P", data_dir=write(tmp_path), max_length=None), "max_length is None; it must be a whole number")


def test_lengths_of_numpy_are_plain_in_the_record(tmp_path):
    data = load_dataset("P", data_dir=write(tmp_path), length=np.int64(5))
    assert type(data.settings["length"]) is int and data.X_train.shape == (4, 5, 1)


@pytest.mark.parametrize("options, words", [
    (dict(name=None), "the dataset is None"), (dict(name=["P"]), "the dataset is ['P']"), (dict(name=""), "is called ''"), (dict(name="../P"), "is called '../P'"),
    (dict(name="P\0"), "no classification dataset is called"), (dict(name="x"*5000), "is called 'xxx"), (dict(name="a\nb"), "is called 'a"),
    (dict(method="cubic"), "'linear' or 'fourier'"), (dict(method=["linear"]), "'linear' or 'fourier'"), (dict(method=np.zeros((30, 30))), "'linear' or 'fourier'"),
    (dict(standardise="no"), "standardise is 'no'; it must be True or False"), (dict(reindex=None), "reindex is None"), (dict(download="False"), "download is 'False'"),
    (dict(data_dir=""), "data_dir is an empty string; name a folder, or leave data_dir out"), (dict(data_dir=" "), "data_dir is ' ', which is not a folder"),
    (dict(data_dir=5), "data_dir is 5, which is not a folder"), (dict(data_dir=b"x"), "which is not a folder"), (dict(data_dir="a\0b"), "which is not a folder"),
], ids=repr)
def test_odd_options(options, words):
    refused(lambda: load_dataset(**{"name": "JapaneseVowels", **options}), words)


def test_a_folder_that_the_environment_names_wrongly(monkeypatch):
    monkeypatch.setenv("TST_MI_DATA", "/nowhere/at/all")
    refused(lambda: load_dataset("JapaneseVowels"), "TST_MI_DATA is '/nowhere/at/all', which is not a folder")
    monkeypatch.setenv("TST_MI_DATA", "")   # in a shell that is as good as not set
    assert "JapaneseVowels" in list_datasets()


@pytest.mark.parametrize("length", [10**9, 10**30, np.int64(2**62)])
def test_a_length_beyond_the_memory(tmp_path, monkeypatch, length):
    def never(*args): raise AssertionError("something was made before the check")
    monkeypatch.setattr("tst_mi.data.resample_series", never)
    refused(lambda: load_dataset("P", data_dir=write(tmp_path), length=length), f"P: 8 series of {length} steps and 1 channels need", "GiB are free; choose a smaller length")


def test_memory_is_counted_in_series_steps_and_channels(tmp_path, monkeypatch):
    write(tmp_path, *[TWO + "1,2:3,4:a\n1,3:3,4:b\n"]*2)
    free = SimpleNamespace(available=3*8*4*100*2)
    monkeypatch.setattr("tst_mi.data.psutil.virtual_memory", lambda: free)
    assert load_dataset("P", data_dir=tmp_path, length=100).X_train.shape == (2, 100, 2)
    refused(lambda: load_dataset("P", data_dir=tmp_path, length=101), "P: 4 series of 101 steps and 2 channels")


def test_labels_as_outputs_have_an_end(tmp_path):
    for big in ("10000", "999999999999", "9"*5000):
        head = numbered("1", big)
        write(tmp_path, head + f"1,2,3:1\n4,5,6:{big}\n", head + "1,2,3:1\n")
        refused(lambda: load_dataset("P", data_dir=tmp_path, reindex=False), "P: reindex=False", "10000 outputs; leave it True")
        assert len(load_dataset("P", data_dir=tmp_path).classes) == 2
    head = numbered("1", "²")
    refused(lambda: load_dataset("P", data_dir=write(tmp_path, head + "1,2,3:1\n4,5,6:²\n", head + "1,2,3:1\n"), reindex=False), "not all whole numbers")


def test_the_shortening_names_what_the_shell_has(tmp_path):
    steps = ",".join(str(i % 7) for i in range(288))
    write(tmp_path, *[HEAD + f"{steps}:a\n{steps[2:]},1:b\n"]*2)
    with pytest.warns(UserWarning) as caught: load_dataset("P", data_dir=tmp_path)
    message = str(caught[0].message)
    assert len(caught) == 1 and "\n" not in message and caught[0].filename == __file__
    for word in ("up to 288 steps long, are shortened to 256 (max_length)", "load_dataset('P', length=288)",
                 "tst_mi report P --length 288"): assert word in message


# ------------------------------------------------------------------ size of values

def scaled(folder, unit, **options):
    "Series whose values are multiples of a unit, which float64 writes exactly."
    values = np.random.default_rng(0).normal(3, 2, (6, 5))
    text = HEAD + "".join(",".join(repr(float(v*unit)) for v in x) + f":{'ab'[i % 2]}\n" for i, x in enumerate(values))
    return values[..., None], load_dataset("P", data_dir=write(folder, text, text), **options)


@pytest.mark.parametrize("unit", [1e-13, 1e-300, 1e-30, 1., 1e30, 1e200, 1e306])
@pytest.mark.parametrize("options", [{}, dict(length=9), dict(length=2)], ids=str)
def test_any_unit_gives_the_same_series(tmp_path, unit, options):
    _, wanted = scaled(tmp_path, 1., **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, found = scaled(tmp_path, unit, **options)
    np.testing.assert_allclose(found.X_train, wanted.X_train, atol=1e-6)
    np.testing.assert_allclose(found.X_train.std(), 1, atol=1e-6)
    np.testing.assert_allclose(np.divide(found.settings["sd"], unit), wanted.settings["sd"], rtol=1e-12)
    np.testing.assert_allclose(np.divide(found.settings["mean"], unit), wanted.settings["mean"], rtol=1e-12)


def test_standardisation_is_the_plain_one_to_the_bit(tmp_path):
    values, data = scaled(tmp_path, 1.)
    plain = (values - values.mean((0, 1)))/values.std((0, 1))
    assert np.array_equal(data.X_train, plain.astype(np.float32))
    assert data.settings["mean"] == values.mean((0, 1)).tolist() and data.settings["sd"] == values.std((0, 1)).tolist()


@pytest.mark.parametrize("level", ["0", "5", "0.1", "1e-13", "1e15", "-1e30"])
def test_a_constant_channel_is_only_centred(tmp_path, level):
    text = HEAD + f"{level},{level},{level}:a\n{level},{level},{level}:b\n"
    data = load_dataset("P", data_dir=write(tmp_path, text, text))
    assert data.settings["sd"] == [1.0] and abs(data.X_train).max() <= 1e-15*abs(float(level))


@pytest.mark.parametrize("unit, remedy", [(1e200, "leave standardise=True"), (1e-60, "leave standardise=True"), (1e306, "another unit")])
def test_what_does_not_fit_the_models_numbers(tmp_path, unit, remedy):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(lambda: scaled(tmp_path, unit, standardise=False), "P: the values of channels [0] (counted from 0), from ", "do not fit 32-bit numbers", remedy)


def test_values_whose_differences_overflow(tmp_path):
    text = HEAD + "-1.7e308,1.7e308,0:a\n1.7e308,?,-1.7e308:b\n"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for length in (2, 3, 5):
            try: data = load_dataset("P", data_dir=write(tmp_path, text, text), length=length)
            except ValueError as e: assert "P: the values of channels [0]" in str(e) and "32-bit" in str(e)
            else: assert np.isfinite(data.X_train).all() and abs(data.X_train.std() - 1) < 1e-6


def test_differences_lost_beside_a_large_offset(tmp_path):
    text = HEAD + "1e9,1e9,1000000000.5:a\n1e9,1000000001,1e9:b\n"
    refused(lambda: load_dataset("P", data_dir=write(tmp_path, text, text), standardise=False), "from 1e+09 to 1e+09", "leave standardise=True")
    assert load_dataset("P", data_dir=tmp_path).X_train.std().round(5) == 1


# ------------------------------------------------------------------ the download cache

class Archive:
    "Stands for the archive: `content` is what a download brings, after `fails` if that is an error."
    def __init__(self, content=GOOD, fails=None): self.content, self.fails, self.asked = content, fails, 0
    def __call__(self, name, extract_path=None):
        self.asked += 1
        write(Path(extract_path), self.content, self.content, name)
        if self.fails: raise self.fails


@pytest.fixture
def archive(monkeypatch):
    def give(*args, **kwargs):
        made = Archive(*args, **kwargs)
        monkeypatch.setattr(aeon.datasets, "load_classification", made)
        return made
    return give


def inside(folder): return sorted(p.name for p in folder.iterdir())


def test_a_download_comes_whole_or_not_at_all(tmp_path, archive):
    cache = tmp_path/"cache"/"data"
    archive(GOOD[:-4], fails=ValueError("Failed to download\nfile"))   # what came until then lies there, half
    refused(lambda: load_dataset("Libras"), "Libras is not on this machine and could not be downloaded", "Failed to download", "connect to the internet")
    assert inside(cache) == [] and "Libras" not in list_datasets()
    asked = archive()
    assert load_dataset("Libras").source == "downloaded by aeon" and load_dataset("Libras").source == "cache"
    assert asked.asked == 1 and inside(cache) == ["Libras"]


@pytest.mark.parametrize("damage", [GOOD[:-4], "", "<html>", GOOD.encode() + bytes(9), HEAD + "1,2,3:a\n", None])
def test_a_damaged_copy_in_the_cache_is_fetched_anew(tmp_path, archive, damage):
    cache = write(tmp_path/"cache"/"data", damage, name="Libras")
    archive(fails=ConnectionError("no network"))
    message = refused(lambda: load_dataset("Libras"), "Libras in the download cache cannot be used (", "could not be downloaded",
                      "no network", f"the damaged copy is in {cache/'Libras'}")
    assert "not on this machine" not in message and inside(cache) == ["Libras"]
    archive()
    with pytest.warns(UserWarning) as caught: data = load_dataset("Libras")
    told, = (str(w.message) for w in caught)
    assert told.startswith("Libras: its copy in the download cache cannot be used (") and "\n" not in told
    assert f"set aside as {cache/'Libras.damaged-1'}" in told and (damage is None or caught[0].filename == __file__)
    assert data.X_train.shape == (4, 3, 1) and inside(cache) == ["Libras", "Libras.damaged-1"]
    kept = cache/"Libras.damaged-1"/"Libras_TRAIN.ts"
    if damage is None: assert not kept.exists()
    else: assert kept.read_bytes() == (damage if isinstance(damage, bytes) else damage.encode())
    (cache/"Libras"/"Libras_TEST.ts").write_text("")
    with pytest.warns(UserWarning, match="damaged-2"): load_dataset("Libras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_dataset("Libras").source == "cache"
    assert [n for n in list_datasets() if n.startswith("Libras")] == ["Libras"]


def test_a_damaged_copy_stays_where_nothing_may_be_fetched(tmp_path, archive):
    cache = write(tmp_path/"cache"/"data", GOOD[:-4], name="Libras")
    asked = archive()
    refused(lambda: load_dataset("Libras", download=False), "Libras_TRAIN.ts cannot be read as a .ts file", "row 4")
    assert asked.asked == 0 and inside(cache) == ["Libras"]


def test_what_the_archive_gives_again_is_not_piled_up(tmp_path, archive):
    cache = write(tmp_path/"cache"/"data", *[GOOD[:-4]]*2, name="Libras")
    archive(GOOD[:-4])
    for _ in range(2): refused(lambda: load_dataset("Libras"), "row 4 after @data", "it was downloaded again, and the archive's copy is the same")
    assert inside(cache) == ["Libras"]


def test_two_processes_may_download_at_once(tmp_path, monkeypatch):
    class Faster(Archive):
        def __call__(self, name, extract_path=None):
            super().__call__(name, extract_path)
            write(tmp_path/"cache"/"data", name=name)   # the other one is done meanwhile
    monkeypatch.setattr(aeon.datasets, "load_classification", Faster())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_dataset("Libras").X_train.shape == (4, 3, 1)
    assert inside(tmp_path/"cache"/"data") == ["Libras"]


def test_what_lies_elsewhere_is_never_moved(tmp_path, archive):
    asked = archive()
    write(tmp_path/"own", GOOD[:-4], name="Libras")
    refused(lambda: load_dataset("Libras", data_dir=tmp_path/"own"), "Libras_TRAIN.ts cannot be read")
    assert asked.asked == 0 and inside(tmp_path/"own") == ["Libras"]


def test_a_cache_that_cannot_be_written(tmp_path, archive):
    archive()
    (tmp_path/"cache").write_text("a file where a folder should be")
    refused(lambda: load_dataset("Libras"), "Libras is not on this machine and could not be downloaded")
