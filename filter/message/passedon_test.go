package message

import (
	"net/netip"
	"testing"

	"sluice/intercept/flow"
)

func TestPassedOn(t *testing.T) {
	t.Parallel()
	f := &flow.Flow{Client: netip.MustParseAddrPort("192.0.2.10:40000")}
	for _, c := range []struct {
		what, from, header string
		want               bool
	}{
		{"made here", "shop@a.example", "Subject: x\r\n", false},
		{"a script's", "shop@a.example", "Received: by web.a.example (Postfix, from userid 33)\r\n\tid 4ABC; Thu, 1 Jan 2026 10:00:00 +0000\r\n", false},
		{"an office's, from inside", "x@a.example", "Received: from pc7 (pc7.a.example [10.0.0.7])\r\n\tby mail.a.example (Postfix) with ESMTP id 4ABC\r\n\tfor <y@b.example>; Thu, 1 Jan 2026 10:00:00 +0000\r\n", false},
		{"from home, logged in", "x@a.example", "Received: from [198.51.100.7] (port=5123 helo=laptop)\r\n\tby mail.a.example with esmtpsa (TLS1.3) tls TLS_AES_256_GCM_SHA384\r\n\t(Exim 4.98)\r\n\t(envelope-from <x@a.example>)\r\n\tid 1abc; Thu, 1 Jan 2026 10:00:00 +0000\r\n", false},
		{"web mail", "x@a.example", "Received: from [198.51.100.7] by web.a.example with HTTP; Thu, 1 Jan 2026 10:00:00 +0000\r\n", false},
		{"its own hop", "x@a.example", "Received: from mail.a.example (mail.a.example [192.0.2.10]) by mail.a.example (Postfix) with ESMTP id 4; Thu, 1 Jan 2026 10:00:00 +0000\r\n", false},
		{"a comment with by", "x@a.example", "Received: from pc7 (by the way [198.51.100.7]\r\n", false},
		{"from outside", "y@b.example", "Received: from mx.b.example (mx.b.example [198.51.100.25])\r\n\tby mail.a.example (Postfix) with ESMTPS id 4ABC\r\n\tfor <x@a.example>; Thu, 1 Jan 2026 10:00:00 +0000\r\n", true},
		{"from outside, second hop", "y@b.example", "Received: from localhost (localhost [127.0.0.1]) by mail.a.example with ESMTP id 1; Thu, 1 Jan 2026 10:00:00 +0000\r\nReceived: from mx.b.example (mx.b.example [IPv6:2001:db8::25]) by mail.a.example with ESMTP id 4; Thu, 1 Jan 2026 10:00:00 +0000\r\n", true},
		{"SRS", "SRS0=HHH=TT=b.example=y@a.example", "Subject: x\r\n", true},
		{"resent", "x@a.example", "Resent-From: x@a.example\r\n", true},
		{"from a mailbox", "x@a.example", "Delivered-To: x@a.example\r\n", true},
	} {
		m := &Message{Flow: f, Envelope: Envelope{From: Address(c.from)}, Data: []byte(c.header + "\r\nbody\r\nDelivered-To: no field\r\n")}
		if got := PassedOn(m); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

func FuzzPassedOn(f *testing.F) {
	f.Add([]byte("Received: from a (b [192.0.2.1]) by c with ESMTP\r\n\r\n"))
	f.Add([]byte("Received: from ((((\r\nReceived: by [ with \r\n"))
	f.Fuzz(func(_ *testing.T, b []byte) { PassedOn(&Message{Data: b}) })
}
