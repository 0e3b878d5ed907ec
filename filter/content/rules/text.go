package rules

import (
	"slices"
	"strings"

	"sluice/filter/content/view"
)

// What phishers are after, and what they want done or threaten with, in several languages. Words are compared by their
// beginning, so that endings do not matter.
var (
	assets = stems("account password passcode mailbox inbox wallet card bank identit billing payment payroll subscription membership storage parcel package delivery invoice refund credential " +
		"konto passwor bankdat karte paket rechnung postfach compte mot-de-passe carte colis facture remboursement cuenta contraseña tarjeta paquete factura reembolso " +
		"conta senha cartão cadastro fatura boleto encomenda pontos conto password carta pacco rimborso rekening wachtwoord bankpas pakket")
	deeds = stems("verify verif confirm validat revalidat updat upgrad restore unlock suspend restrict limited locked deactivat terminat expir immediately urgent unusual unauthori suspicious declined failure undeliver pending withheld sign-in login log-in reactivat avoid releas re-validat claim " +
		"bestätig verifizier aktualisier gesperrt eingeschränkt sofort ungewöhnlich umgehend abgelaufen läuft freischalt confirmer vérifi mettre suspendu bloqué attente urgent verific confirm actualic suspend bloque caduc inmediat pendiente " +
		"atualiz bloque suspen regulariz resgat expira imediat vencid sospes verifica aggiorna scade blocc bevestig geblokkeerd verloopt bijwerken")
)

// stems maps the first letters of words, at most stemLen of them.
func stems(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[stem(w)] = true
	}
	return m
}

const stemLen = 7

func stem(w string) string { return w[:min(len(w), stemLen)] }

// wanted says of a stem in which list it stands.
var wanted = func() map[string]int {
	m := map[string]int{}
	for w := range assets {
		m[w] |= 1
	}
	for w := range deeds {
		m[w] |= 2
	}
	return m
}()

// begins tells by four letters whether a word can be in one of the lists: most words cannot.
var begins = func() (t [1 << 14]bool) {
	for w := range wanted {
		if len(w) == 3 {
			for c := range 256 {
				t[four(w[0], w[1], w[2], byte(c))] = true
			}
			continue
		}
		t[four(w[0], w[1], w[2], w[3])] = true
	}
	return t
}()

func four(a, b, c, d byte) uint32 {
	return (uint32(a) | uint32(b)<<8 | uint32(c)<<16 | uint32(d)<<24) * 2654435761 >> 18
}

// text looks for the pattern of phishing in subject and beginning of the text, where there is a link or a page to follow.
func (c *checker) text() {
	v := c.v
	follow := len(v.Files) > 0 && ending(v.Files[0].Name) != ".pdf"
	for i := range v.Links {
		follow = follow || v.Links[i].Kind != view.Image
	}
	if !follow {
		return
	}
	var found [2]map[string]bool
	scan(v.Subject, &found)
	scan(v.Text[:min(len(v.Text), 1500)], &found)
	if len(found[0]) >= 1 && len(found[1]) >= 3 || len(found[0]) >= 3 && len(found[1]) >= 2 {
		c.fire(&phishText, join(found[0])+"; "+join(found[1]))
	}
}

// scan notes the words of text that are assets or deeds.
func scan(text []byte, found *[2]map[string]bool) {
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && inWord[text[i]] != 0 {
			i++
		}
		if word := text[start:i]; len(word) >= 4 && begins[four(inWord[word[0]], inWord[word[1]], inWord[word[2]], inWord[word[3]])] {
			var low [stemLen]byte
			n := 0
			for _, c := range word[:min(len(word), stemLen)] {
				low[n] = inWord[c]
				n++
			}
			note(low[:n], found)
		}
		i++
	}
}

// inWord is each byte of a word, letters in lower case, and 0 for what stands between words.
var inWord = func() (t [256]byte) {
	for i := range t {
		switch c := byte(i); {
		case c >= 'A' && c <= 'Z':
			t[c] = c | 0x20
		case isWord(c) || c == '-':
			t[c] = c
		}
	}
	return t
}()

// note adds the stem with which word begins to the lists in which it stands.
func note(word []byte, found *[2]map[string]bool) {
	for n := len(word); n >= 3; n-- {
		in := wanted[string(word[:n])]
		for k := range found {
			if in&(1<<k) == 0 || found[k][string(word[:n])] {
				continue
			}
			if found[k] == nil {
				found[k] = map[string]bool{}
			}
			found[k][string(word[:n])] = true
		}
		if in != 0 {
			return
		}
	}
}

func join(words map[string]bool) string {
	var all []string
	for w := range words {
		all = append(all, strings.ToValidUTF8(w, ""))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
