package msglog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// looked is what the index of a sealed segment says to a search.
type looked struct {
	g    *sealed // nil: there is no such segment
	rows []uint32
	err  error
}

// look asks the index of a segment. It may be called for several segments at once.
func (s *search) look(name string) (k looked) {
	if k.g, k.err = openSealed(name); k.err != nil {
		if errors.Is(k.err, os.ErrNotExist) {
			k.err = nil
		}
		return k
	}
	if g := k.g; len(s.indexed) > 0 && s.within(g.first, g.last) && (s.flow == 0 || g.low <= s.flow && s.flow <= g.high) {
		if k.rows, k.err = g.having(s.indexed); len(k.rows) > 0 && len(k.rows) <= fewRows {
			_, _, k.err = g.fetch(k.rows, len(k.rows))
		}
	}
	return k
}

const (
	// fewRows of a segment are read whatever the other segments have: the disk is told of them while those are still asked.
	fewRows = 8
	// Of so many blocks the disk is told before the first of them is read.
	firstAhead, mostAhead = 4, 64
)

// held is a block with wanted rows.
type held struct {
	number int
	rows   []uint32
}

// fetch finds the blocks that hold the last of rows, which ascend, at most so many, and has the disk begin to read them all.
// rest are the rows before those.
func (s *sealed) fetch(rows []uint32, most int) (found []held, rest []uint32, err error) {
	for len(rows) > 0 && len(found) < most {
		i, err := s.holding(rows[len(rows)-1])
		if err != nil {
			return nil, nil, err
		}
		p, _, err := s.pack(i)
		if err != nil {
			return nil, nil, err
		}
		from, _ := slices.BinarySearch(rows, p.row)
		found = append(found, held{i, rows[from:]})
		rows = rows[:min(from, len(rows)-1)]
		_ = unix.Fadvise(int(s.f.Fd()), p.at, int64(p.size), unix.FADV_WILLNEED) // it is read in any case
	}
	return found, rows, nil
}

// sealed searches a sealed segment, the newest rows first.
func (s *search) sealed(ctx context.Context, g *sealed, rows []uint32) (err error) {
	if !s.within(g.first, g.last) {
		return nil
	}
	if s.unpack == nil {
		if s.unpack, err = newUnpacker(); err != nil {
			return err
		}
	}
	from, to := s.window(g)
	if from == to {
		return nil
	}
	if len(s.indexed) == 0 {
		for i := to - 1; i >= from && !s.done && ctx.Err() == nil; i-- {
			err = errors.Join(err, s.numbered(g, i, nil))
		}
		return errors.Join(err, context.Cause(ctx))
	}
	if rows, err = g.between(rows, from, to); err != nil {
		return err
	}
	for n := firstAhead; len(rows) > 0 && !s.done && ctx.Err() == nil; n = min(2*n, mostAhead) {
		found, rest, e := g.fetch(rows, n)
		if e != nil {
			return errors.Join(err, e)
		}
		for _, h := range found {
			if s.done || ctx.Err() != nil {
				break
			}
			err = errors.Join(err, s.numbered(g, h.number, h.rows))
		}
		rows = rest
	}
	return errors.Join(err, context.Cause(ctx))
}

// window returns the numbers of the first block that touches the time asked for, and of that behind the last.
func (s *search) window(g *sealed) (from, to int) {
	to = int(g.blocks)
	if s.within(g.first, g.first) && s.within(g.last, g.last) {
		return 0, to
	}
	all, err := g.packs(0, to)
	if err != nil {
		return 0, to // each block is asked for itself, and says what is damaged
	}
	touches := func(p pack) bool { return s.within(p.first, p.last) }
	if from = slices.IndexFunc(all, touches); from < 0 {
		return 0, 0
	}
	for !touches(all[to-1]) {
		to--
	}
	return from, to
}

// between returns those of rows, which ascend, that stand in the blocks from one number up to another.
func (s *sealed) between(rows []uint32, from, to int) ([]uint32, error) {
	if from == 0 && to == int(s.blocks) {
		return rows, nil
	}
	first, _, err := s.pack(from)
	if err != nil {
		return nil, err
	}
	_, end, err := s.pack(to - 1)
	if err != nil {
		return nil, err
	}
	i, _ := slices.BinarySearch(rows, first.row)
	j, _ := slices.BinarySearch(rows, end)
	return rows[i:j], nil
}

// numbered looks at the wanted rows of a block by its number.
func (s *search) numbered(g *sealed, i int, wanted []uint32) error {
	p, end, err := g.pack(i)
	if err == nil && s.within(p.first, p.last) {
		err = s.pack(g, &p, end, wanted)
	}
	if err != nil {
		return fmt.Errorf("block %d: %w", i, err)
	}
	return nil
}

// pack looks at the wanted rows of one block, or at all where nothing is asked that has a key.
func (s *search) pack(g *sealed, p *pack, end uint32, wanted []uint32) error {
	text, err := s.unpack.text(g, p)
	if err != nil {
		return err
	}
	if s.rows, err = cutRows(s.rows[:0], text); err != nil || uint32(len(s.rows)) != end-p.row {
		return errors.Join(errSealed, err)
	}
	for i := len(s.rows) - 1; i >= 0 && !s.done; i-- {
		if len(s.indexed) > 0 {
			n := len(wanted)
			if n == 0 {
				return nil
			}
			if wanted[n-1] != p.row+uint32(i) {
				continue
			}
			wanted = wanted[:n-1]
		}
		if err := s.row(s.rows[i]); err != nil {
			return err
		}
	}
	return nil
}
