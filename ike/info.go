package ike

import "sallyport/ike/ikesa"

// Info is a copy of what the control tool shows of an IKE SA.
type Info struct {
	ikesa.Info
	Shard int
	Usage []Usage // of Children, in their order; zero where the data plane does not know one
}

// List calls f with every IKE SA until it returns false. What it gets is a copy, made by the shard between two messages.
func (s *Server) List(f func(*Info) bool) {
	for _, sh := range s.shards {
		infos := make(chan []*Info, 1)
		if !sh.orders.post(func() { defer close(infos); infos <- sh.list() }) {
			return
		}
		for _, i := range <-infos {
			if !f(i) {
				return
			}
		}
	}
}

func (sh *shard) list() []*Info {
	all := make([]*Info, 0, len(sh.sas))
	for _, e := range sh.sas {
		i := &Info{Info: e.sa.Info(), Shard: sh.index}
		for _, c := range i.Children {
			u, _ := sh.server.kernel.Usage(c.SPIIn, c.SPIOut)
			i.Usage = append(i.Usage, u)
		}
		all = append(all, i)
	}
	return all
}
