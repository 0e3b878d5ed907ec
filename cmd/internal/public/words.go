package public

import (
	"strconv"
	"strings"
)

// words are what a page says in one language.
type words struct {
	Lang string

	Codes, Search, SearchButton, List, Nothing, Back                                            string
	Sent, To1, ToMany, Appeal, AppealHint, Why, WhyHint, AppealButton, Appealed, AppealedHint   string
	Approved, Denied, Unlock, Locked, Since, Until, UntilPerson, Ticket, Reason, Messages, Mend string
	UnlockButton, Unlocked, UnlockedHint, Over, Expired, Forged, Withdrawn, TooMany, NotFound   string
	Failed, Contact, Manual, Never, Used, AppealMany, TooLong, Whom, MoreLinks, NotHere         string
}

// languages are those that pages speak; the first one where nobody asks for another.
var languages = []*words{english, german, french}

var english = &words{
	Lang: "en", Codes: "Why was my mail refused?", Search: "Search the codes", SearchButton: "Search", List: "Codes", Nothing: "No code fits these words.", Back: "All codes",
	Sent: "Your message of", To1: "to one recipient", ToMany: "to %d recipients", Appeal: "This is not spam",
	AppealHint: "Tell us if the message was refused by mistake. A person looks at it, with what the filter saw.", Why: "What should we know? (optional)", WhyHint: "What the message was about, and who expects it. Do not write passwords.",
	AppealButton: "This is not spam", Appealed: "Thank you, we look at it.", AppealedHint: "Your report is with the people who run this gateway. You need not send it again.",
	Approved: "The message was found to be good. Please send it again if it has not arrived.", Denied: "A person looked at the message and found that it was refused rightly.",
	Unlock: "Unlock sending", Locked: "Sending is locked", Since: "Since", Until: "Until", UntilPerson: "until a person unlocks", Ticket: "Ticket", Reason: "Reason", Messages: "What was sent", Whom: "Who is locked",
	Mend:         "Please find what sent these messages, and stop it, before you unlock: a stolen password, a web form, a script. If it goes on, sending is locked again, and this link will not help a second time.",
	UnlockButton: "I have stopped it: unlock now", Unlocked: "Sending is unlocked", UnlockedHint: "Mail that waits goes out within minutes. For some time you can send fewer messages than usual.",
	Over: "The lock has ended already. There is nothing to do.", Expired: "This link's time is over.", Forged: "This link is not one of ours, or was not copied whole.",
	Withdrawn: "This lock cannot be ended by the link: it was used before, and bad mail went on.", TooMany: "Too many requests from your address. Please try again later.", NotFound: "There is no such page.",
	Failed: "Something went wrong on our side. Please try again later.", Contact: "Questions", Manual: "A person set this lock; a person has to end it.", Never: "This lock cannot be ended by a link.",
	Used: "The links were used as often as allowed.", AppealMany: "There are many reports of this sender already. Please contact us directly.", TooLong: "The text is too long.", MoreLinks: "Unlocks by link that remain after this one", NotHere: "Nothing is known of this message any more.",
}

var german = &words{
	Lang: "de", Codes: "Warum wurde meine E-Mail abgelehnt?", Search: "Codes durchsuchen", SearchButton: "Suchen", List: "Codes", Nothing: "Kein Code passt zu diesen Wörtern.", Back: "Alle Codes",
	Sent: "Ihre Nachricht vom", To1: "an einen Empfänger", ToMany: "an %d Empfänger", Appeal: "Das ist kein Spam",
	AppealHint: "Sagen Sie uns, wenn die Nachricht irrtümlich abgelehnt wurde. Ein Mensch sieht sie sich an, mit dem, was der Filter sah.", Why: "Was sollten wir wissen? (freiwillig)", WhyHint: "Worum es ging und wer die Nachricht erwartet. Bitte keine Passwörter.",
	AppealButton: "Das ist kein Spam", Appealed: "Danke, wir sehen es uns an.", AppealedHint: "Ihre Meldung liegt bei den Betreibern dieses Gateways. Sie müssen sie nicht noch einmal senden.",
	Approved: "Die Nachricht wurde für gut befunden. Bitte senden Sie sie noch einmal, falls sie nicht angekommen ist.", Denied: "Ein Mensch hat die Nachricht angesehen; sie wurde zu Recht abgelehnt.",
	Unlock: "Versand entsperren", Locked: "Der Versand ist gesperrt", Since: "Seit", Until: "Bis", UntilPerson: "bis ein Mensch entsperrt", Ticket: "Ticket", Reason: "Grund", Messages: "Was gesendet wurde", Whom: "Wer gesperrt ist",
	Mend:         "Bitte finden und beenden Sie, was diese Nachrichten gesendet hat, bevor Sie entsperren: ein gestohlenes Passwort, ein Webformular, ein Skript. Geht es weiter, wird erneut gesperrt, und dieser Link hilft kein zweites Mal.",
	UnlockButton: "Ich habe es beendet: jetzt entsperren", Unlocked: "Der Versand ist entsperrt", UnlockedHint: "Wartende E-Mail geht in den nächsten Minuten hinaus. Eine Zeit lang können Sie weniger senden als sonst.",
	Over: "Die Sperre ist schon beendet. Es gibt nichts zu tun.", Expired: "Die Zeit dieses Links ist vorbei.", Forged: "Dieser Link ist nicht von uns oder wurde nicht vollständig kopiert.",
	Withdrawn: "Diese Sperre lässt sich nicht per Link beenden: Er wurde schon benutzt, und es ging weiter.", TooMany: "Zu viele Anfragen von Ihrer Adresse. Bitte versuchen Sie es später.", NotFound: "Diese Seite gibt es nicht.",
	Failed: "Bei uns ging etwas schief. Bitte versuchen Sie es später.", Contact: "Fragen", Manual: "Ein Mensch hat gesperrt; ein Mensch muss entsperren.", Never: "Diese Sperre lässt sich nicht per Link beenden.",
	Used: "Die Links wurden so oft benutzt wie erlaubt.", AppealMany: "Zu diesem Absender liegen schon viele Meldungen vor. Bitte wenden Sie sich direkt an uns.", TooLong: "Der Text ist zu lang.", MoreLinks: "Entsperrungen per Link, die danach bleiben", NotHere: "Über diese Nachricht ist nichts mehr bekannt.",
}

var french = &words{
	Lang: "fr", Codes: "Pourquoi mon message a-t-il été refusé ?", Search: "Chercher dans les codes", SearchButton: "Chercher", List: "Codes", Nothing: "Aucun code ne correspond.", Back: "Tous les codes",
	Sent: "Votre message du", To1: "à un destinataire", ToMany: "à %d destinataires", Appeal: "Ce n’est pas un spam",
	AppealHint: "Dites-le-nous si le message a été refusé par erreur. Une personne l’examinera, avec ce que le filtre a vu.", Why: "Que devrions-nous savoir ? (facultatif)", WhyHint: "Le sujet du message et qui l’attend. Pas de mots de passe.",
	AppealButton: "Ce n’est pas un spam", Appealed: "Merci, nous l’examinons.", AppealedHint: "Votre signalement est chez les responsables de cette passerelle. Inutile de l’envoyer à nouveau.",
	Approved: "Le message a été jugé bon. Veuillez le renvoyer s’il n’est pas arrivé.", Denied: "Une personne a examiné le message ; il a été refusé à juste titre.",
	Unlock: "Débloquer l’envoi", Locked: "L’envoi est bloqué", Since: "Depuis", Until: "Jusqu’à", UntilPerson: "jusqu’à ce qu’une personne débloque", Ticket: "Ticket", Reason: "Raison", Messages: "Ce qui a été envoyé", Whom: "Qui est bloqué",
	Mend:         "Avant de débloquer, trouvez et arrêtez ce qui a envoyé ces messages : un mot de passe volé, un formulaire, un script. Si cela continue, l’envoi sera bloqué à nouveau et ce lien n’aidera plus.",
	UnlockButton: "C’est arrêté : débloquer maintenant", Unlocked: "L’envoi est débloqué", UnlockedHint: "Les messages en attente partent dans les minutes qui viennent. Pendant un certain temps, vous pouvez en envoyer moins que d’habitude.",
	Over: "Le blocage est déjà terminé. Il n’y a rien à faire.", Expired: "Ce lien a expiré.", Forged: "Ce lien n’est pas de nous, ou n’a pas été copié en entier.",
	Withdrawn: "Ce blocage ne peut pas être levé par le lien : il a déjà servi, et cela a continué.", TooMany: "Trop de demandes depuis votre adresse. Réessayez plus tard.", NotFound: "Cette page n’existe pas.",
	Failed: "Une erreur est survenue chez nous. Réessayez plus tard.", Contact: "Questions", Manual: "Une personne a posé ce blocage ; une personne doit le lever.", Never: "Ce blocage ne peut pas être levé par un lien.",
	Used: "Les liens ont servi autant de fois que permis.", AppealMany: "Il y a déjà beaucoup de signalements pour cet expéditeur. Contactez-nous directement.", TooLong: "Le texte est trop long.", MoreLinks: "Déblocages par lien qui restent ensuite", NotHere: "On ne sait plus rien de ce message.",
}

// wordsFor chooses the language that a browser asks for first among those that there are (RFC 9110 12.5.4).
func wordsFor(accept string) *words {
	best, weight := languages[0], 0.0
	for one := range strings.SplitSeq(accept, ",") {
		tag, rest, _ := strings.Cut(strings.TrimSpace(one), ";")
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(rest), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64)
		}
		base, _, _ := strings.Cut(strings.ToLower(tag), "-")
		for _, l := range languages {
			if l.Lang == base && q > weight {
				best, weight = l, q
			}
		}
	}
	return best
}
