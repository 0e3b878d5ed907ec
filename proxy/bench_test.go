package proxy

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"sluice/filter"
	"sluice/filter/message"
)

// nullLog takes records and keeps nothing.
type nullLog struct{}

func (nullLog) Put(*Record) {}

// BenchmarkMessage sends one 10 KiB message after another over the loopback interface through the server to a
// destination, both written to cost little: what is measured is the proxy, and the kernel under it.
func BenchmarkMessage(b *testing.B) {
	for _, c := range []struct {
		name      string
		pipelined bool
	}{{"lockstep", false}, {"pipelined", true}} {
		b.Run(c.name, func(b *testing.B) { benchMessage(b, c.pipelined) })
	}
}

func benchMessage(b *testing.B, pipelined bool) {
	mx, err := net.Listen("tcp", "127.0.0.1:0")
	must(b, err)
	defer mx.Close()
	go swallow(mx)
	look := filter.Step{Name: "look", Phases: []filter.Phase{filter.Mail, filter.Rcpt, filter.Data}, Check: checkFunc(
		func(_ context.Context, _ filter.Phase, _ *message.Message, hits []filter.Hit) []filter.Hit {
			return hits
		})}
	r := newRig(b, mx.Addr().(*net.TCPAddr).AddrPort(), steps(look), func(r *rig) { r.cfg.Log = nullLog{} })
	p := r.hello()
	must(b, p.nc.SetDeadline(time.Time{}))
	body := []byte("Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 131) + ".\r\n")
	envelope := []string{"MAIL FROM:<a@client.example>\r\n", "RCPT TO:<b@sink.example>\r\n", "DATA\r\n"}
	group := []byte(strings.Join(envelope, ""))
	read := func() {
		line, err := p.br.ReadSlice('\n')
		if err != nil || line[0] > '3' {
			b.Fatalf("%q, %v", line, err)
		}
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if pipelined {
			_, _ = p.nc.Write(group)
			for range envelope {
				read()
			}
		} else {
			for _, l := range envelope {
				_, _ = p.nc.Write([]byte(l))
				read()
			}
		}
		_, _ = p.nc.Write(body)
		read()
	}
}

// swallow is a destination that takes everything.
func swallow(ln net.Listener) {
	for {
		nc, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer nc.Close()
			br := bufio.NewReaderSize(nc, 32<<10)
			_, _ = nc.Write([]byte("220 mx\r\n"))
			for data := false; ; {
				line, err := br.ReadSlice('\n')
				if err != nil {
					return
				}
				var reply string
				switch {
				case data && !bytes.Equal(line, []byte(".\r\n")):
					continue
				case data:
					data, reply = false, "250 2.0.0 queued as 4Qk2xV1Z9z\r\n"
				case bytes.HasPrefix(line, []byte("EHLO")):
					reply = "250-mx\r\n250-PIPELINING\r\n250 SIZE 1000000\r\n"
				case bytes.HasPrefix(line, []byte("DATA")):
					data, reply = true, "354 go\r\n"
				default:
					reply = "250 2.1.0 ok\r\n"
				}
				_, _ = nc.Write([]byte(reply))
			}
		}()
	}
}
