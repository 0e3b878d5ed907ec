package learn

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// A model's file: the magic line, a line of JSON that says what follows, then the weights, deflated: for each view pairs
// of the distance to the next slot in use and its weight, and at the end a checksum over all that was inflated.
const (
	magic     = "sluice model 1\n"
	maxHeader = 64 << 10
	// maxFileSize bounds what a file may unpack to: every slot in use, at nine bytes.
	maxFileSize = views * (1 << slotBits) * 9
)

// fileHeader is the line of JSON. A key that a reader does not know is ignored; another layout has another magic.
type fileHeader struct {
	Info        Info        `json:"info"`
	Calibration Calibration `json:"calibration"`
	Bias        float64     `json:"bias"`
	Bits        int         `json:"bits"`
	Features    int         `json:"features"` // which way of making features
}

// featureVersion counts ways of making features: weights learnt with one are noise with another.
const featureVersion = 3

// Save writes the model whole.
func (m *Model) Save(w io.Writer) error { return m.write(w, false) }

// SaveSmall writes the model with weights that are rounded to eight significant bits, which pack to half the size and
// judge the same. It is meant for shipping.
func (m *Model) SaveSmall(w io.Writer) error { return m.write(w, true) }

func (m *Model) write(w io.Writer, round bool) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	head, err := json.Marshal(fileHeader{m.info, m.cal, m.bias, slotBits, featureVersion})
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "%s%s\n", magic, head); err != nil {
		return err
	}
	z, err := flate.NewWriter(w, flate.BestCompression)
	if err != nil {
		return err
	}
	sum := crc32.NewIEEE()
	out := bufio.NewWriter(io.MultiWriter(z, sum))
	for _, ws := range m.weights {
		writeWeights(out, ws, round) // its error comes out of Flush
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if _, err := z.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32())); err != nil {
		return err
	}
	return z.Close()
}

func writeWeights(out *bufio.Writer, ws []float32, round bool) {
	var room [binary.MaxVarintLen64]byte
	last := -1
	for i, v := range ws {
		bits := math.Float32bits(v)
		if round {
			bits = (bits + 0x8000) &^ 0xffff
		}
		if bits&^(1<<31) == 0 {
			continue
		}
		_, _ = out.Write(room[:binary.PutUvarint(room[:], uint64(i-last))])
		last = i
		_, _ = out.Write(binary.LittleEndian.AppendUint32(room[:0], bits))
	}
	_ = out.WriteByte(0) // no more slots
}

// ErrOtherVersion is the error for a model that is whole but was made for another way of reading messages.
var ErrOtherVersion = errors.New("it was built for another version of the content filter")

// Load reads a model. The error says what is wrong with the file.
func Load(r io.Reader) (*Model, error) {
	in := bufio.NewReader(r)
	line := make([]byte, len(magic))
	if _, err := io.ReadFull(in, line); err != nil || string(line) != magic {
		return nil, errors.New("it is no model of this version; build one with `sluice train --offline` or export one")
	}
	head, err := readLine(in)
	if err != nil {
		return nil, err
	}
	var h fileHeader
	if err := json.Unmarshal(head, &h); err != nil {
		return nil, fmt.Errorf("its header is damaged: %w; take another copy", err)
	}
	if h.Features > 0 && (h.Bits != slotBits || h.Features != featureVersion) {
		return nil, fmt.Errorf("%w: features of version %d with %d bits, and this program has version %d with %d; build it anew", ErrOtherVersion, h.Features, h.Bits, featureVersion, slotBits)
	}
	if h.Features <= 0 || !finite(h.Bias, h.Calibration.A, h.Calibration.B) || h.Calibration.A <= 0 {
		return nil, errors.New("its header has figures that make no sense; take another copy")
	}
	m := NewModel("")
	m.info, m.cal, m.bias = h.Info, h.Calibration, h.Bias
	if err := m.readAll(flate.NewReader(in)); err != nil {
		return nil, err
	}
	return m, nil
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for len(line) < maxHeader {
		c, err := in.ReadByte()
		if err != nil {
			return nil, errors.New("it ends in its header; take another copy")
		}
		if c == '\n' {
			return line, nil
		}
		line = append(line, c)
	}
	return nil, errors.New("its header has no end; take another copy")
}

var errDamaged = errors.New("its weights are damaged; take another copy")

func (m *Model) readAll(z io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(z, maxFileSize))
	if err != nil || len(data) < 4 {
		return errDamaged
	}
	body, sum := data[:len(data)-4], data[len(data)-4:]
	if crc32.ChecksumIEEE(body) != binary.LittleEndian.Uint32(sum) {
		return errDamaged
	}
	in := bytes.NewReader(body)
	for i := range m.weights {
		if err := readWeights(in, m.weights[i]); err != nil {
			return err
		}
	}
	return nil
}

func readWeights(in *bytes.Reader, ws []float32) error {
	var four [4]byte
	at := -1
	for {
		d, err := binary.ReadUvarint(in)
		if err != nil || d > uint64(len(ws)) {
			return errDamaged
		}
		if d == 0 {
			return nil
		}
		if at += int(d); at >= len(ws) {
			return errDamaged
		}
		if _, err := io.ReadFull(in, four[:]); err != nil {
			return errDamaged
		}
		if ws[at] = math.Float32frombits(binary.LittleEndian.Uint32(four[:])); !finite(float64(ws[at])) {
			return errDamaged
		}
	}
}

func finite(all ...float64) bool {
	for _, x := range all {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return false
		}
	}
	return true
}
