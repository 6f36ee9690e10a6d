"""Whether a text is English, by its script and its most common words.

The judge's rules are for English. Other languages are told from it by letters of other scripts, or
by more words that only they have than words that only English has. Not here: which language it is.
"""

import re
import unicodedata

#: Share of letters of another script from which on a text is in another language.
OTHER_SCRIPT = 0.3

#: Common words that only English has (of the languages here).
ENGLISH = frozenset(
    """
    the of and are were be been being its this that these those there here with without for from by
    at if then than but not you your yours they them their his her our i i'm i'll i'd i've it's
    that's don't can't won't isn't doesn't you're you'll let's what which who whose when where
    why how have having does did done will would could should must may might shall about into
    onto over under after before between because while until through first second third next
    last step make makes making take takes taken give given get gets write use used using need
    needs needed goes going know known think want any each every most more many much other
    another such only own same too very just please sorry thank thanks yes hello help helps
    people thing things way ways day year years work works good new old great like two three
    four five out up down off again once both few nor cannot however therefore answer question
    example following
    """.split()
)

#: Common words of other languages in Latin letters that English does not have; each stands once.
OTHERS = {
    "Spanish": """
        una unos unas porque como cuando donde quien para por sobre entre pero muy más
        también sí su sus mis tu tus yo ellos nosotros usted ustedes es está están ser
        estar fue hay hacer hacerlo puedo puede puedes pueden quiero quiere lo siento
        gracias hola ayudar ayudarte ayuda primero luego después ahora aquí eso esto esta
        este estos estas cómo qué
    """,
    "French": """
        une du aux et ou où dans avec pour chez mais donc très aussi ce cette ces cela
        ça je nous vous ils elles mon sa mes tes ses notre votre leur sont suis êtes
        être avoir avez ont peux peut pouvez voici voilà bonjour merci désolé désolée
        pourquoi faire aider d'abord ensuite puis c'est qu'il n'est j'ai l'eau
    """,
    "German": """
        der dem ein eine einen einem einer eines und oder aber nicht kein keine ohne für
        von vom zum zur bei nach aus auf über unter zwischen ich sie wir ihr mein dein
        sein ihre unser ist sind bist waren haben habe wird werden kann können kannst muss
        müssen soll wie wann warum wo wer dass weil wenn dann auch sehr schon noch nur hier
        dort tut mir leid leider dabei helfen danke bitte hallo nein zuerst danach
    """,
    "Portuguese": """
        uma uns umas nas em ao aos à às pelo pela não muito também eu ele ela nós você
        vocês meu minha seu sua é são estão foi tem têm posso pode podem desculpe desculpa
        obrigado obrigada olá quando onde porquê isso isto aquilo ajudar primeiro
    """,
    "Italian": """
        gli uno della dello delle degli dei nella nel senza tra fra molto anche perché io
        lui lei noi voi loro mio mia tuo tua suo è sono sei siamo siete essere avere hai
        hanno può possono dispiace grazie ciao questo questa quello quella che chi dove non
    """,
    "Dutch": """
        het een voor zonder naar bij uit tussen maar niet geen wel ook heel zeer ik jij
        hij zij wij jullie mijn jouw zijn haar onze bent heeft hebben kunnen moet moeten
        zal wordt worden helaas bedankt alstublieft hoe wat waarom waar dit dat deze eerst
        daarna
    """,
    "Swedish, Norwegian, Danish": """
        och att det som för på är av med om inte ett jag han hon har kommer ska
        måste tyvärr tack hej hur vad varfor varför og til ikke jeg deg dig skal hvordan hva
    """,
    "Polish": """
        nie się jest są że jak dla czy ale przez tylko jestem mogę przepraszam dziękuję
        proszę
    """,
    "Turkish": """
        bir bu için ile ama değil çok nasıl neden sen biz siz üzgünüm yardımcı olamam lütfen
    """,
    "Indonesian": """
         yang ke untuk dengan tidak ini itu saya anda kami mereka adalah bisa dapat maaf
    """,
    "Vietnamese": """
        và của là không một những các được với trong này tôi bạn xin lỗi
    """,
    "Romanian": """
         sunt pentru cu fără îmi rău
    """,
    "Czech": """
        že jsem jsou nebo promiňte mohu
    """,
    "Finnish": """
        ei ole mutta että miten anteeksi
    """,
    "Hungarian": """
        és hogy nem egy az vagy sajnálom
    """,
}
_OTHERS = frozenset(" ".join(OTHERS.values()).split())

#: Letters with marks; English has them in loans alone.
_MARKED = re.compile(r"[à-öø-ÿāăąćčďđęěğıłńňőœřśşšťůűźżžơưạ-ỹ]")
LOANS = frozenset(
    "café naïve résumé façade cliché fiancé crème brûlée jalapeño sauté purée señor".split()
)

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def is_english(text: str) -> bool:
    """False where most of a text is in another language; true where nothing says so."""
    letters = [letter for letter in text if letter.isalpha()]
    of_other_script = sum(not _is_latin(letter) for letter in letters)
    if letters and of_other_script >= OTHER_SCRIPT * len(letters):
        return False
    words = _WORD.findall(text.replace("\u2019", "'"))
    english = sum(word.lower() in ENGLISH for word in words)
    others = sum(_is_foreign(word) for word in words)
    return others <= english


def _is_latin(letter: str) -> bool:
    """Of the Latin script, or a sign that no script owns."""
    owner = unicodedata.name(letter, "LATIN").split()[0]
    return owner in ("LATIN", "MODIFIER", "FEMININE", "MASCULINE")


def _is_foreign(word: str) -> bool:
    """A common word of another language, or one with marks, unless it is a loan or a name."""
    if word.lower() in _OTHERS:
        return True
    return word not in LOANS and word[0].islower() and bool(_MARKED.search(word))
