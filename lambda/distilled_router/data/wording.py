"""Lists of words that matter when queries are compared: function words, requests, negations, opposites."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Dropping one never reverses a query's meaning, as it would for "not", "without", "up" or "from".
FUNCTION_WORDS = _words(
    "a an and are as at be by for her his in is it its of on or that the their this to was were with"
    " 的 了 着 在 是 有 和 与 與 一 个 個 只 が を の に は で と も へ や"
)
# Words after a query that ask for it.
_REQUESTS_AFTER = _words(
    "please thanks thank video videos clip clips footage material scene scenes segment segments sequence"
    " sequences part parts moment moments"
)
# Words before it, such as "please show me the part where". At the end, "kids play" is what they do.
_REQUESTS = _REQUESTS_AFTER | _words(
    "show find search look looking get give want need like watch see play display locate bring pull fetch"
    " searching showing featuring containing"
)
_BESIDE_REQUESTS = FUNCTION_WORDS | _words(
    "i am im id d m ll me my we us you your can could would will let any all some there where when which now"
    " up about do have one just hi hello hey"
)
# Words that add nothing to a query inside.
ASKING = _REQUESTS | _BESIDE_REQUESTS
_NEGATIONS = _words(
    "no not never without nobody nothing none neither nor cannot cant wont dont doesnt didnt isnt arent wasnt"
    " werent 不 没 沒 无 無 未"
)
# Common words that are one letter from another one. So neither is a typo of the other.
COMMON_WORDS = FUNCTION_WORDS | _words(
    "bad bag ball bang bank bar bark barking bat bay beach bead bear beard beat bed bee beer bell belt"
    " bench bike bird bit bite black blast block blow blows boat boil book books boot boots bowl box boy"
    " boys brake bread break bride bridge bright bring brown bug bull burn bus bush but buy cab cage cake"
    " call calls came camp can cap car card care cart case cat catch chair chant chat cheer chin clap"
    " clapping clash class clean clear click clicking climb cling clock close closed cloth cloud clown"
    " club coach coal coast coat coin cold cook cooking cool cooling cop corn cot couch count court cow"
    " crack crane crash cream creek crew cross crow crowd crown cry crying cup cut cutting dance dark day"
    " deep deer desk dig digging dip dish do dock dog door dot down draw drawing drink drive driving drop"
    " drum dry drying duck ear earth east eat eating egg end eye face fall falling fan far farm fast fat"
    " feed feet fight fighting fill film fin fine fire firm fish fit five fix flag flat float flood floor"
    " flow flower fly flying fog fold food foot fork form four fox free frog from front fry full fun game"
    " gas gate girl girls give glass go goal goat gold golf good grass great green greet ground growl"
    " guard gull gum gun guy hair hall ham hand hang hat he head hear heart heat heavy heel help her hid"
    " hide high hill him hit hits hold hole home hood hook hop horn horse hot hour house hug hum hunt hurt"
    " ice ill inside jam jet job jog joke jump jumping keep key kick kicking kid kids kill king kiss kit"
    " kitchen knife knit lab lady lake lamb lamp land lane large last late laugh law lay lead leaf leak"
    " lean leap leave leaves led left leg less let lid lie lies lift light like line lion lip list live"
    " log long look looking loud love low mad made mail main make making male man map mark market mask mat"
    " match me meal mean meat meet men metal mice mike milk mill mind mine mood moon mop more most mouse"
    " mouth move movie mud my nail near neck net new news next night no nod noise north nose note now nut"
    " oil old one open our out oven owl own pack page paint pair pan pants park parking part pass past pat"
    " path pay peel pen people pet pick picking pig pile pin pink pipe pit place plain plane plant plate"
    " play player playing pool pop port pot pour pouring pray prayer press pull pulling pump push put race"
    " rack rail rain ramp ran rat read reading red rest rice rid ride riding right ring ringing rise river"
    " road roar rob robe rock role roll rolling roof room root rope rose row rub rug run running sad sail"
    " sale salt same sand sat save saw say scare scene school score sea seal seat see seed seen sell send"
    " set sew she sheep sheet shelf shine ship shirt shoe shop short shot show shower shut side sight sign"
    " sing singer singing sink sinking sip sit site sits sitting six size skate ski skin skip sky slam"
    " sled sleep sleeping slide slip slow small smell smile smoke snake snap snow soap sock soft some son"
    " song soon sort soup south speak spin spit splash spoon sport spot spray spring stage stair stairs"
    " stall stand star stare start state stay steal steam steel stem step steps stick still sting stir"
    " stone stool stop store storm stove street string strip suit sun sung swim swing sword table tail"
    " take taking talk talking tall tank tap tape taping tapping tea team tear tell ten tent test text"
    " then there they thin thing think this three throw tick tie tiger time tin tip tire to toast toe too"
    " tool top torn toss tow towel tower town toy track trail train tray tree trick trip truck try tub"
    " tube tug turn two van vase vest voice vote wait walk walking wall want war warm wash watch water"
    " wave waving way wear wearing weave web wed weep well went west wet whale what wheat wheel when where"
    " white who wide wife wig wild will win wind window wine wing wings wipe wire wise wish witch with"
    " woman women wood wool word work world worm write yard year yell yelling you young your zip zoo zoom"
)
# Another word of the same group makes another query, however many words are the same.
OPPOSITES = tuple(
    _words(group)
    for group in (
        "red blue green yellow orange purple pink brown black white grey gray golden silver"
        " 红 紅 赤 蓝 藍 青 绿 綠 緑 黄 黃 黑 黒 白",
        "left right 左 右",
        "up down",
    )
)
# Han, kana and Hangul are written without spaces, so each character counts as a word.
_CHARACTER_WORDS = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
# Thai, Lao, Burmese and Khmer have no spaces between words either, and letters that alone mean nothing.
_LETTERS_WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]")
_LETTERS = 3


def words_of(form: str) -> list[str]:
    """Return the words of a normalised query."""
    if not form.isascii():
        form = _CHARACTER_WORDS.sub(r" \g<0> ", form)
    return form.split()


def is_written_without_spaces(word: str) -> bool:
    """Return whether each character may be a word."""
    return not word.isascii() and bool(_CHARACTER_WORDS.search(word))


def with_letters(words: Iterable[str]) -> Iterator[str]:
    """Yield words, and in place of text without spaces all its three neighbouring letters."""
    for word in words:
        if len(word) > _LETTERS and _LETTERS_WITHOUT_SPACES.search(word):
            yield from (word[place : place + _LETTERS] for place in range(len(word) - _LETTERS + 1))
        else:
            yield word


def has_meaning(words: Iterable[str]) -> bool:
    """Return whether there is more than function words."""
    return not FUNCTION_WORDS.issuperset(words)


def without_request(words: Sequence[str]) -> Sequence[str]:
    """Return the words without those at both ends that only ask for them; all if nothing would be left."""
    start, end = 0, len(words)
    while start < end and (words[start] in _REQUESTS or words[start] in _BESIDE_REQUESTS):
        start += 1
    if _REQUESTS.isdisjoint(words[:start]):
        start = 0
    while end > start and (words[end - 1] in _REQUESTS_AFTER or words[end - 1] in _BESIDE_REQUESTS):
        end -= 1
    if _REQUESTS_AFTER.isdisjoint(words[end:]):
        end = len(words)
    return words[start:end] if end - start and has_meaning(words[start:end]) else words


def negations(words: Sequence[str]) -> int:
    """Return the number of negations. A normalised "don't" is the words "don" and "t"."""
    found = sum(word in _NEGATIONS for word in words)
    if "t" in words:
        found += sum(word == "t" and words[place][-1] == "n" for place, word in enumerate(words[1:]))
    return found


class Stems(dict[str, str]):
    """The stem of each word, without a plural's `s`; empty for function words. Each is computed once."""

    def __missing__(self, word: str) -> str:
        is_plural = len(word) > 3 and word[-1] == "s" and word[-2] != "s"
        self[word] = stem = "" if word in FUNCTION_WORDS else word[:-1] if is_plural else word
        return stem

    def of(self, words: Collection[str]) -> set[str]:
        """Return the stems of words, or all words if there are only function words."""
        stems = set(map(self.__getitem__, words))
        stems.discard("")
        return stems or set(words)
