package learn

import (
	"hash/crc32"
	"strings"
	"testing"

	"sluice/filter/content/view"
)

// golden are messages and the sums of their features. Models that were learnt stay valid only as long as these stay.
var golden = []struct {
	mail string
	sum  uint32
}{
	{"From: Ann <a@example.org>\nSubject: hello\n\nThe minutes of 12.03.2002: nothing was decided, at 100%!!\n", 0x45dd1ab8},
	{"From: \"Shop No 1\" <shop@mail.example.com>\nReply-To: other@gmail.com\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe_aus_K=C3=B6ln?=\nList-Unsubscribe: <https://example.com/u>\nMIME-Version: 1.0\n" +
		"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain; charset=iso-8859-1\n\nGr\xfc\xdfe  aus K\xf6ln\n\n--b\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n" +
		"<html><body style=3D\"display:block\"><p>Gr&uuml;&szlig;e&nbsp;aus <A HREF=3D\"https://www.example.com/a?b=3D1&amp;c=3D2\">K&ouml;ln</a></P>\n<div style=3D\"display: none\">hidden</div><td>x<td>y<img src=3Dhttp://198.51.100.7/p.gif></body>\n--b--\n", 0x2081d058},
	{"From: x@example.net\nSubject: RE: AW: order 4711\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("VGhlIG9yZGVyIE5vLiBBMTIzNDU2Nzg5MC1YIGNvbWVzIG9uIFR1ZXNkYXksIGRvbid0IHdhaXQuCg==\n", 200), 0x791589f2},
	{"Subject: long\n\n" + strings.Repeat("incomprehensibilities-of-counterrevolutionaries ab 123456 $5 don't http://www.example.org/path/to/a/page?id=12 \x80\xff\n", 120), 0x83ff1b57},
}

// TestFeaturesStay: what is found in a message is what was found when the shipped model was built.
func TestFeaturesStay(t *testing.T) {
	t.Parallel()
	for _, g := range golden {
		f := NewFeatures()
		f.Extract(new(view.Reader).Read([]byte(g.mail)))
		if sum := crc32.ChecksumIEEE(f.AppendIDs(nil)); sum != g.sum {
			t.Errorf("%.60q: the sum of the features is %#x, it was %#x; if that is meant, raise featureVersion and build the model anew", g.mail, sum, g.sum)
		}
	}
}
