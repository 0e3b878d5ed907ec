// Package observe reads the SMTP dialogues of flows that nobody touches, from the beginnings that the kernel copies, and
// tells who sent what to whom and what the server said. It decides nothing, and mail never waits for it.
package observe

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/tcpassembly"

	"sluice/bpf"
	"sluice/intercept/control"
	ids "sluice/intercept/flow"
)

// Options bound the memory.
type Options struct {
	Flows  int           // open at once; default 16,384
	Memory int           // bytes that wait in all flows together for what explains them; default 64 MiB
	Pages  int           // of 2 KB, for what comes out of order, of all flows together; default 4,096, and 16 of one direction
	Idle   time.Duration // a flow that says nothing for so long is over; default 5 minutes
}

// Observer puts segments together and gives a record for each flow that ended. It is for one goroutine.
type Observer struct {
	o     Options
	give  func(*control.Observed)
	flows map[flowKey]*flow
	ids   *ids.IDs
	now   time.Time
	asm   *tcpassembly.Assembler
	born  *flow // of the segment under way: a stream is made for it
	side  int
	held  int // bytes of memory that hang on the flows
	seen  uint64
	lost  uint64
}

type flowKey struct{ client, server netip.AddrPort }

// apart keeps the ids of flows that are observed apart from those of sluiced, should both start in the same second.
const apart = 1 << 19

// flow is one that is open. Arrays are by direction, the server's second.
type flow struct {
	id       uint64
	key      flowKey
	began    uint64 // as the source says; 0 where it does not: then the client's first number tells flows apart
	isn      uint32
	dialogue *dialogue
	told     int       // messages
	held     int       // bytes of memory
	spoke    bool      // anybody
	part     [2]uint8  // counts where the copying went on: each part is a stream of its own
	first    [2]uint32 // sequence numbers of the SYNs, or before the first byte of the part
	last     [2]uint32 // and behind the last byte
	cut      [2]bool   // what it says now is not copied
	ended    [2]bool
	closing  bool      // its end is ours
	reset    time.Time // when somebody sent an RST, which the other side may have refused
	heard    time.Time
}

// New makes an observer that gives its records to give.
func New(o Options, give func(*control.Observed)) *Observer {
	if o.Flows == 0 {
		o.Flows = 16384
	}
	if o.Memory == 0 {
		o.Memory = 64 << 20
	}
	if o.Pages == 0 {
		o.Pages = 4096
	}
	if o.Idle == 0 {
		o.Idle = 5 * time.Minute
	}
	obs := &Observer{o: o, give: give, flows: make(map[flowKey]*flow), ids: ids.NewIDs(time.Now())}
	obs.asm = tcpassembly.NewAssembler(tcpassembly.NewStreamPool(obs))
	obs.asm.MaxBufferedPagesPerConnection = 16
	obs.asm.MaxBufferedPagesTotal = o.Pages
	return obs
}

// Seen tells how many flows began.
func (o *Observer) Seen() uint64 { return o.seen }

// Lost tells how many flows there was no room for, at their beginning or later.
func (o *Observer) Lost() uint64 { return o.lost }

// Held is about how many bytes of memory the flows' dialogues take.
func (o *Observer) Held() int { return o.held }

// Open tells how many flows are open.
func (o *Observer) Open() int { return len(o.flows) }

// Add takes a segment. A flow begins with the SYN of its client; other segments of unknown flows are let go.
func (o *Observer) Add(s bpf.Segment, at time.Time) {
	o.now = at
	f := o.find(s, at)
	if f == nil {
		return
	}
	f.heard = at
	d := side(s.FromServer)
	switch {
	case s.Cut:
		f.cut[d] = true
		f.dialogue.fill(s.FromServer, at)
	case s.Resumed:
		o.resume(f, d, s.Seq)
	default:
		o.take(f, d, &s)
	}
	if f.dialogue.out.Opaque || f.ended == [2]bool{true, true} {
		o.end(f)
		return
	}
	o.weigh(f)
}

func side(server bool) int {
	if server {
		return 1
	}
	return 0
}

// take puts a segment into its place.
func (o *Observer) take(f *flow, d int, s *bpf.Segment) {
	if s.SYN {
		f.first[d], f.last[d] = s.Seq, s.Seq+1
	}
	f.spoke = f.spoke || len(s.Data) > 0
	switch beyond := int32(s.Seq + uint32(len(s.Data)) - f.last[d]); {
	case s.RST:
		if f.reset.IsZero() && !f.dialogue.out.Opaque {
			f.dialogue.breakOff(o.now)
		}
		f.reset = o.now
	case s.FIN && beyond < 0: // the receiver takes no end in the midst of what it has
	case s.FIN && f.cut[d]: // it stands behind bytes that nobody copied
		f.ended[d] = true
	case len(s.Data) > 0 && beyond > 0 && (f.ended[d] || !f.reset.IsZero()):
		f.dialogue.gap(s.FromServer) // the end was a sham that only we believed
	default:
		if beyond > 0 && len(s.Data) > 0 {
			f.last[d] += uint32(beyond)
		}
		o.assemble(f, d, &layers.TCP{Seq: s.Seq, SYN: s.SYN, FIN: s.FIN, BaseLayer: layers.BaseLayer{Payload: s.Data}})
	}
}

// resume goes on with a direction at a sequence number, after bytes that were not copied.
func (o *Observer) resume(f *flow, d int, seq uint32) {
	skipped := int32(seq - f.last[d])
	if f.ended[d] {
		return
	}
	if f.cut[d] = false; skipped <= 0 { // it had said more than the other side answers: the gap shows by itself
		f.dialogue.resume(d == 1, 0, o.now)
		return
	}
	o.close(f, d)
	f.part[d]++
	f.first[d], f.last[d] = seq-1, seq
	o.assemble(f, d, &layers.TCP{Seq: seq - 1, SYN: true})
	f.dialogue.resume(d == 1, int64(skipped), o.now)
}

// weigh keeps the account of memory. What a flow that is one too many holds is dropped: it is read no further.
func (o *Observer) weigh(f *flow) {
	now := f.dialogue.held()
	o.held += now - f.held
	f.held = now
	if o.held <= o.o.Memory || now == 0 {
		return
	}
	o.lost++
	f.dialogue.stop()
	o.held -= f.held
	f.held = 0
}

// find returns the flow of a segment, which may begin with it, or nil.
func (o *Observer) find(s bpf.Segment, at time.Time) *flow {
	key := flowKey{s.Client, s.Server}
	f := o.flows[key]
	if f != nil && f.began == s.Began && !(s.SYN && !s.FromServer && s.Began == 0 && s.Seq != f.isn) {
		return f
	}
	if !s.SYN || s.FromServer || (f != nil && s.Began < f.began) {
		return nil // of a flow that is over, or began before us
	}
	if f != nil {
		o.replace(f)
	} else if o.seen++; len(o.flows) >= o.o.Flows {
		o.lost++
		return nil
	}
	f = &flow{id: uint64(o.ids.Next()) + apart, key: key, began: s.Began, isn: s.Seq}
	f.dialogue = newDialogue(func(m control.ObservedMessage) { o.tell(f, m) })
	out := &f.dialogue.out
	out.ID, out.Client, out.Target, out.Start = f.id, s.Client, s.Server, at
	o.flows[key] = f
	return f
}

// replace ends a flow whose ports begin another one. Where nobody had said anything the client repeats its SYN.
func (o *Observer) replace(f *flow) {
	if !f.spoke {
		o.forget(f)
		return
	}
	o.seen++
	o.end(f)
}

// tell gives the report of one message.
func (o *Observer) tell(f *flow, m control.ObservedMessage) {
	r := f.dialogue.out
	r.Before, r.More, r.End, r.Messages = f.told, true, o.now, []control.ObservedMessage{m}
	f.told++
	o.give(&r)
}

func (o *Observer) assemble(f *flow, d int, tcp *layers.TCP) {
	o.born, o.side = f, d
	o.asm.AssembleWithTimestamp(o.name(f, d), tcp, o.now)
}

// name identifies one part of one direction of one flow for the reassembly, also where ports are used again.
func (o *Observer) name(f *flow, d int) gopacket.Flow {
	var id [10]byte
	binary.BigEndian.PutUint64(id[:], f.id)
	id[8], id[9] = byte(d), f.part[d]
	return gopacket.NewFlow(gopacket.EndpointType(0), id[:8], id[8:])
}

// New makes the stream of the direction that Add is at; the reassembly asks for it.
func (o *Observer) New(gopacket.Flow, gopacket.Flow) tcpassembly.Stream {
	return &stream{flow: o.born, side: o.side, part: o.born.part[o.side], observer: o}
}

// stream hands one part of one direction to its dialogue.
type stream struct {
	observer *Observer
	flow     *flow
	side     int
	part     uint8
}

// Reassembled takes bytes in order.
func (s *stream) Reassembled(list []tcpassembly.Reassembly) {
	for _, r := range list {
		if r.Skip != 0 {
			s.flow.dialogue.gap(s.side == 1)
		}
		if len(r.Bytes) > 0 {
			s.flow.dialogue.add(s.side == 1, r.Bytes, s.observer.now)
		}
	}
}

// ReassemblyComplete is told when a direction has ended.
func (s *stream) ReassemblyComplete() {
	if s.part == s.flow.part[s.side] && !s.flow.closing {
		s.flow.ended[s.side] = true
	}
}

// end gives the record of a flow and forgets it.
func (o *Observer) end(f *flow) {
	o.forget(f)
	out := f.dialogue.close(o.now)
	out.Before = f.told
	o.give(out)
}

// forget lets go of a flow and its streams.
func (o *Observer) forget(f *flow) {
	delete(o.flows, f.key)
	o.held -= f.held
	f.held = 0
	for d := range f.part {
		o.close(f, d)
	}
}

// close ends a stream, which may wait for bytes that never come: an end at the very beginning is always in order.
func (o *Observer) close(f *flow, d int) {
	f.closing = true
	o.assemble(f, d, &layers.TCP{Seq: f.first[d] + 1, RST: true})
	f.closing = false
}

const (
	patience = 10 * time.Second // bytes that came too early wait for those before them
	quiet    = 2 * time.Second  // after an RST: then it was meant
)

// Tick ends flows that have said nothing for long, and gives up waiting for bytes that never came.
func (o *Observer) Tick(now time.Time) {
	o.now = now
	o.asm.FlushWithOptions(tcpassembly.FlushOptions{T: now.Add(-min(patience, o.o.Idle))})
	o.asm.FlushOlderThan(now.Add(-2 * o.o.Idle))
	for _, f := range o.flows {
		silence := now.Sub(f.heard)
		if silence >= o.o.Idle || (!f.reset.IsZero() && silence >= quiet) || f.ended == [2]bool{true, true} {
			o.end(f)
		}
	}
}

// Close ends every flow, as the observer's own end does.
func (o *Observer) Close(now time.Time) {
	o.now = now
	for _, f := range o.flows {
		o.end(f)
	}
}
