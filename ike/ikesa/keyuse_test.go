package ikesa

import "fmt"

// keyUsedOnce fails the test if a key is installed for sending a second time, by whichever
// host and under whichever SPI: sequence numbers, and with them nonces, begin at 1 again
// (D1).
func (w *world) keyUsedOnce(h *host, spi uint32, key []byte) {
	if w.keys == nil {
		w.keys = map[string]string{}
	}
	use := fmt.Sprintf("%s sends on %x", h.name, spi)
	if before, used := w.keys[string(key)]; used {
		w.t.Errorf("%s with a key that was used before: %s\n%s", use, before, w.log.String())
	}
	w.keys[string(key)] = use
}
