package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"

	"sluice/intercept/nft"
	"sluice/intercept/observe"
)

const (
	// queueMemory is the socket's room for packets that wait for their verdict. It, not the number of packets, bounds the
	// queue, because what finds it full takes a number all the same, so that every loss is counted. Where this process is
	// stopped, the packets in it wait; all others go on.
	queueMemory  = 1 << 20
	queuePackets = 1 << 16
	// queueAhead is how many packets may wait for the reader; the next is let go and counted.
	queueAhead = 4096
)

// queue is the source of the nftables path: the first packets of what each side says come by NFQUEUE, and each is sent on
// before anything else is done.
type queue struct {
	number uint16
	limit  int
	log    *slog.Logger
	q      *nfqueue.Nfqueue
	ahead  chan []byte
	last   uint32 // number of the last packet
	missed atomic.Uint64
	lease  sync.Mutex
	until  time.Time // packets are sent to the queue
	failed chan error
}

func openQueue(number uint16, limit int, log *slog.Logger) (*queue, error) {
	s := &queue{number: number, limit: limit, log: log, ahead: make(chan []byte, queueAhead), failed: make(chan error, 1)}
	q, err := nfqueue.Open(&nfqueue.Config{NfQueue: number, MaxPacketLen: uint32(limit + 128), MaxQueueLen: queuePackets, Copymode: nfqueue.NfQnlCopyPacket,
		Flags: nfqueue.NfQaCfgFlagFailOpen | nfqueue.NfQaCfgFlagGSO, WriteTimeout: time.Second})
	if err != nil {
		return nil, fmt.Errorf("could not open queue %d: %w", number, err)
	}
	s.q = q
	if err := errors.Join(q.Con.SetReadBuffer(queueMemory), q.SetOption(netlink.NoENOBUFS, true)); err != nil {
		return nil, errors.Join(fmt.Errorf("could not set up queue %d: %w", number, err), q.Close())
	}
	if err := s.watch(); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return s, nil
}

// watch begins to read the queue, and then has packets sent to it.
func (s *queue) watch() error {
	err := s.q.RegisterWithErrorFunc(context.Background(), s.take, func(err error) int {
		if op, ok := errors.AsType[*netlink.OpError](err); ok && (op.Timeout() || op.Temporary()) {
			return 0
		}
		s.fail(fmt.Errorf("could not read queue %d: %w", s.number, err))
		return 1
	})
	if err != nil {
		return fmt.Errorf("could not bind queue %d: %w; does another program read it? another number: observe.queue", s.number, err)
	}
	return s.send()
}

// reading is for how long the kernel takes this process to read the queue after it said so: packets wait for one that is
// stopped no longer.
const reading = 3 * every

// send has packets sent to the queue.
func (s *queue) send() error {
	if err := nft.Watch(s.number, s.limit/1024+4, s.limit); err != nil {
		return err
	}
	return s.renew()
}

// renew says that this process reads the queue. What passed after it had last said so for long enough was not read.
func (s *queue) renew() error {
	s.lease.Lock()
	defer s.lease.Unlock()
	began := time.Now()
	if err := nft.Watching(reading); err != nil {
		return err
	}
	if late := time.Since(s.until); !s.until.IsZero() && late > 0 {
		s.missed.Add(1)
		s.log.Warn("packets went on unread while this program did not run", "for", late.Round(time.Millisecond))
	}
	s.until = began.Add(reading)
	return nil
}

// keepReading renews until ctx ends, however long the reader takes.
func (s *queue) keepReading(ctx context.Context) {
	tick := time.NewTicker(reading / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_ = s.renew() // look finds out what has become of the table, and says so
		}
	}
}

// take lets a packet go and keeps a copy for the reader.
func (s *queue) take(a nfqueue.Attribute) int {
	if a.PacketID == nil {
		return 0
	}
	if err := s.q.SetVerdict(*a.PacketID, nfqueue.NfAccept); err != nil {
		s.fail(fmt.Errorf("could not let a packet go on: %w", err))
		return 1
	}
	if gone := *a.PacketID - s.last - 1; s.last != 0 && gone < 1<<31 {
		s.missed.Add(uint64(gone))
	}
	s.last = *a.PacketID
	if a.Payload == nil {
		return 0
	}
	select {
	case s.ahead <- *a.Payload:
	default:
		s.missed.Add(1)
	}
	return 0
}

func (s *queue) fail(err error) {
	select {
	case s.failed <- err:
	default:
	}
}

func (s *queue) run(ctx context.Context, to *feed) error {
	ctx, cancel := context.WithCancel(ctx)
	var renewal sync.WaitGroup
	defer renewal.Wait()
	defer cancel()
	renewal.Go(func() { s.keepReading(ctx) })
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-s.failed:
			return err
		case b := <-s.ahead:
			if err := to.put(observe.Packet, b); err != nil {
				return err
			}
			if len(s.ahead) == 0 {
				if err := to.flush(); err != nil {
					return err
				}
			}
		case <-tick.C:
			if err := s.look(to); err != nil {
				return err
			}
		}
	}
}

// look counts losses and puts the rules back where the table was made anew.
func (s *queue) look(to *feed) error {
	if err := to.lost(s.missed.Load()); err != nil {
		return err
	}
	stands, err := nft.Stands()
	if err != nil {
		return err
	}
	if !stands {
		return errChanged
	}
	watched, err := nft.Watched()
	if err != nil {
		return err
	}
	if watched {
		return s.renew()
	}
	s.log.Info("the table was made anew: it is watched again")
	s.missed.Add(1) // what has passed meanwhile
	return s.send()
}

// Close takes the rules away and lets go of the queue; mail goes on.
func (s *queue) Close() error { return errors.Join(nft.Unwatch(), s.q.Close()) }
