package habit

import (
	"bytes"
	"unicode/utf8"
)

// language is what a text is written in, as far as a few frequent words or its letters tell.
type language uint8

// The languages, and scripts that stand for theirs. Their numbers stand in files: new ones come last.
const (
	unsaid language = iota
	english
	german
	french
	spanish
	italian
	dutch
	portuguese
	polish
	swedish
	turkish
	cyrillic
	greek
	arabic
	hebrew
	chinese
	japanese
	korean
	thai
	languages = 24 // room for more
)

// String returns the language's name in logs.
func (l language) String() string {
	names := [...]string{"unknown", "English", "German", "French", "Spanish", "Italian", "Dutch", "Portuguese", "Polish", "Swedish", "Turkish",
		"in Cyrillic", "Greek", "Arabic", "Hebrew", "Chinese", "Japanese", "Korean", "Thai"}
	if int(l) >= len(names) {
		return "?"
	}
	return names[l]
}

// words are frequent ones that only one of the languages has.
var words = func() map[string]language {
	m := map[string]language{}
	for l, list := range map[language]string{
		english:    "the and you your with this that are have will from not please",
		german:     "und der das nicht sie ich mit für ist auf wir ein bitte",
		french:     "les des vous est pour dans nous votre avec sur pas cette",
		spanish:    "los las por usted del como este para sus muy está nuestro",
		italian:    "che non della sono gli nel alla questo più anche suo",
		dutch:      "het een van niet voor zijn naar ook wij uw deze",
		portuguese: "não você uma dos seu sua pela mais isso obrigado",
		polish:     "nie się jest dla oraz przez proszę jak",
		swedish:    "och att inte som är på har du vi",
		turkish:    "bir için ile değil ve bu olarak",
	} {
		for w := range bytes.FieldsSeq([]byte(list)) {
			m[string(w)] = l
		}
	}
	return m
}()

const (
	mostText   = 512 // bytes of a text that are looked at
	leastWords = 5   // of one language that make a text of it, and three times as many as of any other
	leastChars = 20  // of a script that has no words here
)

// languageOf tells what a text is written in; unsaid where that is not clear.
func languageOf(text []byte) language {
	text = text[:min(len(text), mostText)]
	var n [languages]int
	for len(text) > 0 {
		size := 0
		for size < len(text) && letter(text[size]) {
			if l := script(text[size:]); l != unsaid {
				n[l]++
			}
			size++
		}
		if size > 0 {
			var low [16]byte
			if size <= len(low) {
				for i, c := range text[:size] {
					if low[i] = c; c >= 'A' && c <= 'Z' {
						low[i] |= 0x20
					}
				}
				n[words[string(low[:size])]]++
			}
		}
		text = text[min(size+1, len(text)):]
	}
	n[unsaid] = 0
	best, second := unsaid, 0
	for l, k := range n {
		if k > n[best] {
			second, best = n[best], language(l)
		} else {
			second = max(second, k)
		}
	}
	least := leastWords
	if best >= cyrillic {
		least = leastChars
	}
	if n[best] < least || n[best] < 3*second && best < cyrillic {
		return unsaid
	}
	return best
}

// letter tells what is part of a word.
func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= utf8.RuneSelf }

// script tells the language of a letter that begins here, where its script has one.
func script(b []byte) language {
	if b[0] < 0xC0 { // a Latin letter, or not the first byte of one
		return unsaid
	}
	r, _ := utf8.DecodeRune(b)
	switch {
	case r >= 0x370 && r < 0x400:
		return greek
	case r >= 0x400 && r < 0x530:
		return cyrillic
	case r >= 0x590 && r < 0x600:
		return hebrew
	case r >= 0x600 && r < 0x780:
		return arabic
	case r >= 0xE00 && r < 0xE80:
		return thai
	case r >= 0x3040 && r < 0x3100:
		return japanese
	case r >= 0x4E00 && r < 0xA000:
		return chinese
	case r >= 0xAC00 && r < 0xD7B0:
		return korean
	}
	return unsaid
}
