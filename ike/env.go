package ike

import (
	"io"
	"math/rand/v2"
	"net/netip"
	"time"

	"sallyport/ike/auth"
	"sallyport/ike/ikesa"
	"sallyport/ike/message"
)

// env answers what the IKE SAs of a shard ask in the middle of a step.
type env struct{ shard *shard }

func (v *env) Rand() io.Reader               { return v.shard.server.options.Rand }
func (v *env) NewIKESPI() message.SPI        { return v.shard.newSPI() }
func (v *env) NewChildSPI() (uint32, error)  { return v.shard.server.kernel.NewChildSPI() }
func (v *env) ReleaseChildSPI(spi uint32)    { v.shard.server.kernel.ReleaseSPI(spi) }
func (v *env) Store() *auth.Store            { return v.shard.server.config.Load().store }
func (v *env) LinkMTU(remote netip.Addr) int { return v.shard.server.kernel.LinkMTU(remote) }
func (v *env) KeyLog() bool                  { return v.shard.server.keyLog.Load() != nil }

// RekeyWait spreads the rekeys of many tunnels that were set up together: no more a second than the limit begin. Who has
// to wait asks again after a random time, so that those who wait do not ask all at once.
func (v *env) RekeyWait() time.Duration {
	wait := v.shard.server.rekeys.wait(time.Now())
	if wait > 0 {
		wait += rand.N(time.Second)
	}
	return wait
}

func (v *env) PathFound(p ikesa.Path) (ikesa.PathFound, bool) {
	return v.shard.server.paths.known(p, time.Now())
}

func (v *env) PathTurn(p ikesa.Path, spi message.SPI) time.Duration {
	return v.shard.server.paths.turn(p, spi, time.Now())
}

func (v *env) Select(q ikesa.Query) *ikesa.Connection { return v.shard.server.config.Load().find(q) }

func (v *env) AssignAddress(c *ikesa.Connection, id auth.Identity, wanted netip.Addr) (ikesa.Lease, error) {
	return v.shard.server.pools.assign(c.Pools, id, wanted)
}

func (v *env) ReleaseAddress(c *ikesa.Connection, id auth.Identity, addr netip.Addr) {
	v.shard.server.pools.release(c.Pools, id, addr)
}

func (v *env) Usage(spiIn, spiOut uint32) (ikesa.Usage, bool) {
	u, ok := v.shard.server.kernel.Usage(spiIn, spiOut)
	return ikesa.Usage{LastIn: u.LastIn, LastOut: u.LastOut}, ok
}
