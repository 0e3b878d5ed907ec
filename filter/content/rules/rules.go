// Package rules finds in a message what speaks for or against it without having learnt: links that pretend, files that
// attack, names that are borrowed.
package rules

import (
	"sluice/filter"
	"sluice/filter/content/view"
)

// Finding is one rule that fired.
type Finding struct {
	Code     string // public and stable
	Class    filter.Class
	Points   float64 // change of the logarithm of the odds that the message is bad
	Text     string  // what a person reads
	Evidence string
}

// rule is what is the same each time a rule fires. Points were set from how much more often a rule fires in bad mail than
// in good, the logarithm of that, rounded down where either count was small.
type rule struct {
	code   string
	class  filter.Class
	points float64
	text   string
}

// CodeCut is the public code of what says that not all of a message was read.
const CodeCut = "OUT-CUT"

var (
	urlNumeric   = rule{"URL-NUMERIC", filter.Spam, 1.5, "a link leads to a number instead of a name"}
	urlUser      = rule{"URL-USER", filter.Phish, 2, "a link hides its host behind an @"}
	urlShort     = rule{"URL-SHORT", filter.Spam, 1, "a link goes through a shortener"}
	urlLookalike = rule{"URL-LOOKALIKE", filter.Phish, 3, "a link's host is written almost like a well-known name"}
	urlBrand     = rule{"URL-BRAND", filter.Phish, 2.5, "a link's host carries a well-known name that is not its owner's"}
	urlIDN       = rule{"URL-IDN", filter.Phish, 2, "a link's host mixes scripts"}
	urlMismatch  = rule{"URL-MISMATCH", filter.Phish, 1.5, "a link shows one host and leads to another"}
	urlFreeHost  = rule{"URL-FREEHOST", filter.Phish, 1, "a link leads to a page that anybody can put up"}
	urlCode      = rule{"URL-CODE", filter.Phish, 3, "a link carries a page or a program inside itself"}

	fileExec      = rule{"FILE-EXEC", filter.Spam, 4, "an attached file is a program"}
	fileDouble    = rule{"FILE-DOUBLE", filter.Spam, 5, "an attached file's name hides what it is"}
	fileType      = rule{"FILE-TYPE", filter.Spam, 4, "an attached file is a program under another type"}
	fileInside    = rule{"FILE-INSIDE", filter.Spam, 4, "an archive contains a program"}
	fileEncrypted = rule{"FILE-ENCRYPTED", filter.Spam, 1.5, "an archive is encrypted"}
	fileNested    = rule{"FILE-NESTED", filter.Spam, 1, "an archive contains archives"}
	fileBomb      = rule{"FILE-BOMB", filter.Spam, 4, "an archive grows beyond all measure"}
	fileMacro     = rule{"FILE-MACRO", filter.Spam, 2, "a document contains macros"}
	fileHTML      = rule{"FILE-HTML", filter.Phish, 1.5, "a web page is attached"}
	fileForm      = rule{"FILE-FORM", filter.Phish, 3, "an attached web page asks for input or runs a program"}

	phishName = rule{"PHISH-NAME", filter.Phish, 2, "the sender's name is a well-known one, the address is not"}
	phishForm = rule{"PHISH-FORM", filter.Phish, 3, "the message asks for a password in a form"}
	phishAddr = rule{"PHISH-ADDRESS", filter.Phish, 1, "the sender's name shows another address"}

	phishText = rule{"PHISH-TEXT", filter.Phish, 1, "the message wants the reader to do something to an account, at once"}

	outReply  = rule{"OUT-REPLY", filter.Spam, 1, "answers go to a free mailbox elsewhere"}
	outForm   = rule{"OUT-WEBFORM", filter.Spam, 1.5, "a web form's field carries a link"}
	outHidden = rule{"OUT-HIDDEN", filter.Spam, 0.5, "much text is hidden from the reader"}
	outCut    = rule{CodeCut, filter.Policy, 0, "the message is larger or deeper than what is read of it"}
)

// Check returns the findings for v, appended to found. Each rule fires at most once.
func Check(v *view.View, found []Finding) []Finding {
	c := checker{v: v, found: found}
	c.links()
	c.files()
	c.names()
	c.text()
	c.outgoing()
	return c.found
}

// checker goes through one view.
type checker struct {
	v     *view.View
	found []Finding
}

// fire notes that r was hit, the first time only.
func (c *checker) fire(r *rule, evidence string) {
	for i := range c.found {
		if c.found[i].Code == r.code {
			return
		}
	}
	if len(evidence) > 200 {
		evidence = evidence[:200] + "…"
	}
	c.found = append(c.found, Finding{r.code, r.class, r.points, r.text, evidence})
}
