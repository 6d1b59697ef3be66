package dataplane

import "sallyport/dataplane/worker"

// Mem is the memory of the engine's frames, over which queues in memory are made.
func (e *Engine) Mem() []byte { return e.umem.Mem() }

// SetQueues puts queues in memory in place of those that PortConfig.Queues announced, as many as
// were announced there: they need Mem, which exists only after New. Before Start or Manual.
func (e *Engine) SetQueues(port int, queues []worker.Queue) {
	copy(e.ports[port].config.Queues, queues)
}
