package uploadtest

import "math/rand/v2"

// perRun is how many faults one run meets at most: fewer than the tries that a request has.
const perRun = 4

// Schedule returns, for each of several runs, the faults that it is to meet, so that every class that
// applies meets every one of the calls times times. Each run makes each of the calls at least once;
// often says which calls it makes at least so often more. A fault that may end a run is its only one.
func Schedule(seed uint64, calls []Call, often map[Call]int, times int) [][]Fault {
	r := rand.New(rand.NewPCG(seed, 1))
	var harmless, ending []Fault
	for _, call := range calls {
		for _, class := range Classes {
			if !class.Applies(call) {
				continue
			}
			for range times {
				f := Fault{Class: class, Call: call}
				if class.Ends(call) {
					ending = append(ending, f)
					continue
				}
				harmless = append(harmless, f)
			}
		}
	}
	shuffle := func(list []Fault) {
		r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	}
	shuffle(harmless)
	shuffle(ending)
	var runs [][]Fault
	for _, f := range ending {
		f.Skip = upTo(r, often[f.Call])
		runs = append(runs, []Fault{f})
	}
	for len(harmless) > 0 {
		var run, rest []Fault
		met := make(map[Call]bool)
		for _, f := range harmless {
			// A call that was disturbed once may not come again.
			if len(run) == perRun || met[f.Call] && often[f.Call] == 0 {
				rest = append(rest, f)
				continue
			}
			met[f.Call] = true
			f.Skip = upTo(r, often[f.Call])
			run = append(run, f)
		}
		runs, harmless = append(runs, run), rest
	}
	return runs
}

func upTo(r *rand.Rand, n int) int {
	if n <= 0 {
		return 0
	}
	return r.IntN(n + 1)
}

// Ends reports whether a fault of the class at the call may end a run, or keep it from calls that it
// would make otherwise.
func (c Class) Ends(call Call) bool {
	switch c {
	case Denied, Vanished, Tomorrow:
		return true
	case WrongETag:
		return call == Head || call == ListParts
	case Lie:
		return true
	}
	return false
}
