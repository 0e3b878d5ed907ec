package kernel

import (
	"cmp"
	"slices"
)

// Cost is nanoseconds per packet above an empty program.
type Cost struct {
	Kind  string  `json:"kind"`
	Users int     `json:"users"`
	Cold  bool    `json:"every_source_different"`
	NS    float64 `json:"ns"`
}

// Forward is what forwarding one packet takes with something in its way.
type Forward struct {
	Way   string  `json:"way"`
	Kind  string  `json:"kind"`
	NS    float64 `json:"ns"`
	Ratio float64 `json:"ratio"` // throughput to plain forwarding: median over the rounds
}

// Stream is what real sockets sent through the gateway: medians over the rounds.
type Stream struct {
	Way     string  `json:"way"`
	Kind    string  `json:"kind"`
	NS      float64 `json:"cpu_ns"`     // per datagram or segment: sender, gateway and receiver
	Bytes   float64 `json:"bytes"`      // of one, without headers
	Share   float64 `json:"cpu_share"`  // of the time that it took: 1 where nobody else had the processor
	Cheaper Middle  `json:"ratio"`      // CPU time per packet of plain forwarding, by that of the way in the same round
	Faster  Middle  `json:"rate_ratio"` // bytes per second, by those of plain forwarding in the same round
}

// Connect is the rate at which connections are set up.
type Connect struct {
	Way   string  `json:"way"`
	Rate  float64 `json:"per_second"`
	Ratio float64 `json:"ratio"`  // to plain forwarding
	CPU   float64 `json:"cpu_us"` // of both ends and all between, per connection
}

// Memory is what tables take for so many users.
type Memory struct {
	Table string  `json:"table"`
	Users int     `json:"users"`
	Bytes uint64  `json:"bytes"`
	Fill  float64 `json:"fill_s"`
}

// Result is everything that was measured.
type Result struct {
	Users      []int     `json:"users"`
	Interfaces int       `json:"interfaces"`
	Alone      []Cost    `json:"alone"`
	InSitu     []Cost    `json:"in_situ"`
	Forwards   []Forward `json:"forwarding"`
	Many       []Forward `json:"forwarding_many_interfaces"`
	Streams    []Stream  `json:"streams"`
	Connects   []Connect `json:"connections"`
	Memory     []Memory  `json:"memory"`
	Tracked    int       `json:"connection_tracking_entries"`
}

func (r *Result) sort() {
	order := map[string]int{}
	for i, k := range kinds() {
		order[k.String()] = i
	}
	for _, list := range [][]Cost{r.Alone, r.InSitu} {
		slices.SortFunc(list, func(a, b Cost) int {
			return cmp.Or(cmp.Compare(order[a.Kind], order[b.Kind]), cmp.Compare(b2i(a.Cold), b2i(b.Cold)), cmp.Compare(a.Users, b.Users))
		})
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
