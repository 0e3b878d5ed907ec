package main

import "strings"

// The words that fill the slots of the templates. None is taken from anybody's mail.
var slots = map[string][]string{
	"n":        list("anna ben carla david emma frank grace henry ines jan karin leo maria nina oscar paul rita sam tom ute vera will yara zoe amir chen priya ravi kofi lucia marco sofia pierre claire lars mette"),
	"last":     list("Miller Schmidt Dubois Rossi Garcia Jansen Novak Berg Larsen Okafor Patel Kim Tanaka Silva Costa Fischer Weber Martin Leroy Bianchi Moreno Visser Brown Taylor Wilson Evans Murphy"),
	"city":     list("Leipzig Lyon Porto Turin Utrecht Bristol Boston Denver Oslo Gdansk Brno Graz Basel Ghent Malmo Cork Leeds Austin Toronto Perth Seville Bologna Nantes Bremen Aarhus"),
	"day":      list("Monday Tuesday Wednesday Thursday Friday Saturday Sunday"),
	"month":    list("January February March April May June July August September October November December"),
	"season":   list("spring summer autumn winter"),
	"freemail": list("gmail.com yahoo.com hotmail.com outlook.com gmx.net aol.com icloud.com"),
	"word":     list("alder basil cedar delta ember fjord gamma harbor indigo juniper kernel lumen maple nimbus onyx pixel quartz raven sable timber umbra vector willow xenon yarrow zephyr cobalt drift falcon glacier"),
	"prod":     strings.Split("running shoes|a desk lamp|linen shirts|coffee beans|a bicycle pump|hiking socks|oak shelves|a garden hose|wool blankets|printer paper|stainless screws|steel pipes|office chairs|USB cables|safety gloves|tea pots|a rain jacket|baking tins|picture frames|hydraulic seals|LED panels|solar cells|notebooks|ceramic tiles", "|"),
	"topic":    strings.Split("open source maintenance|urban gardening|remote work|battery storage|the new timetable|school meals|database migrations|bread baking|the budget for next year|heat pumps|web accessibility|data protection|the summer festival|library opening hours|cycling routes|project planning|language learning|the annual report|code review|the merger|city history|bird watching|film photography|insurance for volunteers", "|"),
	"club":     strings.Split("rowing club|choir|chess club|allotment society|alumni association|hiking club|film society|volunteer fire brigade|parents' council", "|"),
	"event":    strings.Split("summer concert|general meeting|book fair|open day|charity run|autumn market|conference|workshop|exhibition|harvest festival|trade fair", "|"),
	"place":    strings.Split("town hall|club house|library|school gym|old mill|museum|community centre", "|"),
	"gift":     strings.Split("iPhone 15 Pro|Samsung Galaxy S24|Dyson vacuum|Yeti cooler|Ninja air fryer|Makita drill set|PlayStation 5|$500 gift card|$1000 Walmart gift card|cordless drill|tool set|Stanley tumbler|MacBook Air|Costco $100 voucher|kitchen mixer", "|"),
	"girl":     list("Olga Natasha Tanya Svetlana Jessica Amber Crystal Irina Katya Lena Monica Vanessa Julia Kelly"),
	"brand":    strings.Split("PayPal|Microsoft|Office 365|Apple ID|Amazon|Netflix|Facebook|Instagram|Wells Fargo|Bank of America|Citibank|HSBC|Barclays|American Express|Google|iCloud|eBay|Chase Bank|Capital One|LinkedIn|Yahoo|AOL|Lloyds Bank|Intuit|GoDaddy|cPanel|Coinbase|WhatsApp", "|"),
	"street":   strings.Split("12 Mill Lane|48 Station Road|7 Harbour Street|Lindenstr. 15|3 rue du Moulin|Via Roma 22|90 Market Street|Kerkstraat 5|26 Oak Avenue|110 Queen Street", "|"),
	"firmA":    list("North Blue Green Bright Clear River Stone Red Silver Open Fair Quick Long Wood Lake Hill Star Sun Iron Old New Deep High Soft Wild"),
	"firmB":    list("field works house line craft labs books stores tools foods media press wear parts soft point supply bikes bank path care design energy garden"),
	"badA":     list("secure account login verify update service support online info portal web mail auth center notice alert help user client check"),
	"badB":     list("trk mx zq kbl nrd vps srv hst prm dlv qwe xlt bnq wtr ghk lmn opq rst uvw yzx"),
	"tld":      list("com com com com net org co.uk de fr it nl es com.br eu io shop"),
	"badtld":   list("com com com net org info top xyz online site live click shop club icu ru cn com.br co.za"),
}

func list(s string) []string { return strings.Fields(s) }
