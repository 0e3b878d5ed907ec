package rules

import (
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
)

// brands lists names that phishers borrow: the name as it stands in a sender's name, and the labels under which its
// owner's domains are registered. The first label is also looked for in hosts when it has five letters and is no
// dictionary word (a leading "-" says that it is not looked for).
var brands = []struct{ name, labels string }{
	{"paypal", "paypal paypalobjects paypal-communication"},
	{"microsoft", "microsoft live outlook office office365 microsoftonline sharepoint windows azure skype msn hotmail microsoftemail microsoftsupport xbox onedrive bing"},
	{"office 365", "-microsoft office office365 microsoftonline outlook"}, {"office365", "office365 microsoft office microsoftonline"},
	{"outlook team", "-outlook microsoft live"}, {"sharepoint", "sharepoint microsoft sharepointonline"}, {"onedrive", "onedrive microsoft live"},
	{"apple id", "-apple icloud itunes"}, {"apple support", "-apple icloud"}, {"apple store", "-apple"}, {"icloud", "icloud apple"},
	{"amazon", "amazon amazonaws amazonses amazonpay primevideo audible aws a2z media-amazon ssl-images-amazon"}, {"amazon prime", "-amazon primevideo"},
	{"netflix", "netflix nflxext nflximg"}, {"facebook", "facebook facebookmail fb meta fbcdn"}, {"instagram", "instagram facebookmail facebook cdninstagram"},
	{"whatsapp", "whatsapp facebookmail"}, {"linkedin", "linkedin licdn"}, {"spotify", "spotify"}, {"coinbase", "coinbase"}, {"binance", "binance"},
	{"metamask", "metamask consensys"}, {"trust wallet", "-trustwallet"}, {"trustwallet", "trustwallet"}, {"blockchain.com", "-blockchain"}, {"ledger live", "-ledger"}, {"kraken support", "-kraken"},
	{"docusign", "docusign"}, {"dropbox", "dropbox dropboxmail dropboxusercontent"}, {"wetransfer", "wetransfer"}, {"adobe", "adobe adobesign echosign behance"}, {"adobe sign", "-adobe adobesign echosign"},
	{"norton", "-norton nortonlifelock symantec gendigital"}, {"mcafee", "mcafee"}, {"geek squad", "-geeksquad bestbuy"}, {"geeksquad", "geeksquad bestbuy"}, {"best buy", "-bestbuy"},
	{"dhl", "-dhl dhl-news dhlecommerce deutschepost dpdhl"}, {"dhl express", "-dhl"}, {"fedex", "fedex"}, {"usps", "-usps"}, {"royal mail", "-royalmail royalmailgroup"}, {"royalmail", "royalmail royalmailgroup"},
	{"dpd", "-dpd dpdgroup dpdlocal"}, {"chronopost", "chronopost laposte"}, {"colissimo", "colissimo laposte"}, {"la poste", "-laposte"}, {"correos", "correos"}, {"evri", "-evri"},
	{"wells fargo", "-wellsfargo"}, {"wellsfargo", "wellsfargo"}, {"bank of america", "-bankofamerica bofa"}, {"bankofamerica", "bankofamerica bofa"}, {"citibank", "citibank citi"}, {"chase bank", "-chase jpmorgan"}, {"chase online", "-chase jpmorgan"},
	{"hsbc", "-hsbc"}, {"barclays", "barclays barclaycard"}, {"lloyds bank", "-lloydsbank lloydsbanking"}, {"santander", "santander gruposantander"}, {"natwest", "natwest"},
	{"american express", "-americanexpress amex aexp"}, {"americanexpress", "americanexpress aexp"}, {"mastercard", "mastercard"}, {"capital one", "-capitalone"}, {"capitalone", "capitalone"},
	{"bradesco", "bradesco"}, {"itaú", "-itau"}, {"itau", "-itau itau-unibanco"}, {"banco do brasil", "-bb"}, {"nubank", "nubank"}, {"mercado pago", "-mercadopago mercadolivre mercadolibre"}, {"mercado livre", "-mercadolivre mercadolibre"}, {"mercadopago", "mercadopago mercadolivre mercadolibre"},
	{"serasa", "serasa serasaexperian experian"}, {"bbva", "-bbva"}, {"caixabank", "caixabank lacaixa"}, {"sparkasse", "sparkasse"}, {"volksbank", "volksbank vr vr-bank"}, {"commerzbank", "commerzbank"}, {"deutsche bank", "-deutsche-bank db"}, {"postbank", "postbank"}, {"comdirect", "comdirect"},
	{"crédit agricole", "-credit-agricole"}, {"credit agricole", "-credit-agricole ca"}, {"bnp paribas", "-bnpparibas"}, {"société générale", "-societegenerale sg"}, {"ameli", "-ameli"}, {"intesa sanpaolo", "-intesasanpaolo"}, {"unicredit", "unicredit"}, {"poste italiane", "-poste posteitaliane"}, {"rabobank", "rabobank"},
	{"ebay", "-ebay"}, {"aliexpress", "aliexpress alibaba"}, {"walmart", "walmart"}, {"costco", "costco"}, {"shopify", "shopify myshopify"}, {"stripe", "-stripe"}, {"intuit", "intuit quickbooks"}, {"quickbooks", "quickbooks intuit"},
	{"godaddy", "godaddy secureserver"}, {"cpanel", "cpanel"}, {"ionos", "ionos 1und1 1and1"}, {"strato", "-strato"}, {"ovhcloud", "ovhcloud ovh"}, {"hostinger", "hostinger"}, {"telekom", "telekom t-online"}, {"vodafone", "vodafone"}, {"xfinity", "xfinity comcast"}, {"at&t", "-att att-mail"},
	{"hmrc", "-hmrc gov service notifications"}, {"dvla", "-dvla gov service notifications"}, {"irs.gov", "-irs"}, {"steam support", "-steampowered steam"}, {"roblox", "roblox"}, {"telegram", "telegram"}, {"zoom", "-zoom zoomgov"}, {"disney+", "-disneyplus disney"}, {"hulu", "-hulu"}, {"easypark", "easypark"}, {"swisscom", "swisscom"}, {"postfinance", "postfinance"},
}

// brand is one name with its owner's labels.
type brand struct {
	name   string
	labels []string
}

// owns reports whether domain is registered by the owner of the brand, as far as its label tells.
func (b *brand) owns(domain string) bool {
	return slices.Contains(b.labels, label(domain))
}

// table finds brands by a word of a sender's name and by a label of a host.
type table struct {
	byWord  map[string][]*brand // first word of the name
	byLabel map[string]*brand
	near    map[string]*brand // labels with one letter left out
	ends    map[[3]byte]bool  // the first three letters of these labels, and the last three
}

var known = makeTable()

func makeTable() *table {
	t := &table{map[string][]*brand{}, map[string]*brand{}, map[string]*brand{}, map[[3]byte]bool{}}
	for _, x := range brands {
		b := &brand{x.name, strings.Fields(strings.TrimPrefix(x.labels, "-"))}
		first, _, _ := strings.Cut(x.name, " ")
		t.byWord[first] = append(t.byWord[first], b)
		main := b.labels[0]
		if strings.HasPrefix(x.labels, "-") {
			continue
		}
		t.byLabel[main] = b
		if len(main) >= 6 {
			t.ends[[3]byte([]byte(main))], t.ends[[3]byte([]byte(main[len(main)-3:]))] = true, true
			for i := range main {
				t.near[main[:i]+main[i+1:]] = b
			}
		}
	}
	return t
}

// label returns the label under which domain is registered: "example" of mail.example.co.uk.
func label(domain string) string {
	l, _, _ := strings.Cut(registered(domain), ".")
	return l
}

// registered returns the domain that somebody registered, of which domain is a part, or domain itself.
func registered(domain string) string {
	if strings.Count(domain, ".") < 2 {
		return domain
	}
	if d, err := publicsuffix.EffectiveTLDPlusOne(domain); err == nil {
		return d
	}
	return domain
}

// named returns the brand that a sender's name, in lower case, claims to be.
func (t *table) named(name string) *brand {
	var best *brand
	for i := 0; i < len(name); {
		if i > 0 && isWord(name[i-1]) {
			i++
			continue
		}
		end := i
		for end < len(name) && name[end] != ' ' && name[end] != ',' && name[end] != ':' && name[end] != '-' && name[end] != '(' {
			end++
		}
		for _, b := range t.byWord[strings.TrimRight(name[i:end], ".!|®™")] {
			if strings.HasPrefix(name[i:], b.name) && (best == nil || len(b.name) > len(best.name)) {
				best = b
			}
		}
		i = end + 1
	}
	return best
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c >= 0x80
}

// resembles returns the brand that token is written almost like: letters for digits, one letter more, less or other.
func (t *table) resembles(token string) *brand {
	if len(token) < 5 || len(token) > 30 || t.byLabel[token] != nil {
		return nil
	}
	if f := replaced(token); f != token && t.byLabel[f] != nil {
		return t.byLabel[f]
	}
	if !t.ends[[3]byte([]byte(token))] && !t.ends[[3]byte([]byte(token[len(token)-3:]))] { // one letter does not change both ends
		return nil
	}
	if len(token) < 6 || token == "finance" || token == "finances" || !strings.ContainsAny(token, "bcdfghjklmnpqrstvwxyz") {
		return nil
	}
	if b := t.near[token]; b != nil { // a letter less
		return b
	}
	for i := range token {
		short := token[:i] + token[i+1:]
		if b := t.byLabel[short]; b != nil && len(short) >= 6 && !plural(token, short) {
			return b
		}
		if b := t.near[short]; b != nil && len(token) == len(b.labels[0]) && differ(token, b.labels[0]) == 1 {
			return b
		}
	}
	return nil
}

func plural(token, short string) bool { return token == short+"s" }

func differ(a, b string) (n int) {
	for i := range a {
		if a[i] != b[i] {
			n++
		}
	}
	return n
}

// lookalikes turns what is taken for a letter into that letter.
var lookalikes = strings.NewReplacer("0", "o", "1", "l", "3", "e", "5", "s", "4", "a", "rn", "m", "vv", "w",
	"а", "a", "е", "e", "о", "o", "р", "p", "с", "c", "у", "y", "х", "x", "і", "i", "ѕ", "s", "ԁ", "d", "ɡ", "g", "ӏ", "l", "ο", "o", "α", "a", "ν", "v",
	"á", "a", "à", "a", "â", "a", "ä", "a", "é", "e", "è", "e", "ê", "e", "í", "i", "ì", "i", "ï", "i", "ó", "o", "ò", "o", "ö", "o", "ú", "u", "ü", "u", "ñ", "n", "ç", "c", "ł", "l", "ı", "i", "ạ", "a", "ọ", "o", "ẹ", "e")

// replaced is s with what lookalikes replaces. Most names have none of it, which is seen sooner than replaced.
func replaced(s string) string {
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0x80, c >= '0' && c <= '5', (c == 'n' || c == 'v') && i > 0 && (s[i-1] == 'r' || s[i-1] == 'v'):
			return lookalikes.Replace(s)
		}
	}
	return s
}
