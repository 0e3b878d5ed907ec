package view

import "strings"

// Freemail reports whether anybody can have an address of that domain.
func Freemail(domain string) bool {
	name, rest, _ := strings.Cut(domain, ".")
	if rest == "" {
		return false
	}
	switch name {
	case "gmail", "googlemail", "yahoo", "ymail", "hotmail", "outlook", "live", "msn", "aol", "gmx", "icloud", "protonmail", "proton", "yandex", "mail", "web",
		"rediffmail", "excite", "lycos", "zoho", "qq", "163", "126", "tutanota", "fastmail", "freenet", "orange", "laposte", "libero", "bol", "uol":
		return true
	}
	return false
}
