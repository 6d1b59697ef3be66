package wire

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// sink counts frames of one protocol and length, and others apart, and drops all of them.
type sink struct {
	program *ebpf.Program
	counts  *ebpf.Map // per CPU: [0] the frames looked for, [1] others
	// records and next, the number of those kept, are nil without sampling.
	records, next *ebpf.Map
}

// A record is what the sink keeps of one frame, where it samples: the time of arrival and the frame's first bytes.
const (
	records    = 1 << 17
	recordHead = l2 + l3 + espLen + ivLen + 48 // as far as the time stamp in a sealed packet goes
	recordSize = 8 + (recordHead+7)&^7
)

// newSink returns a sink for these frames. If it samples, it keeps a record of each of them, as far as there is room, in which
// case they must have recordHead bytes.
func newSink(wires []wire, sampling bool) (_ *sink, err error) {
	s := &sink{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.counts, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 2}); err != nil {
		return nil, fmt.Errorf("map of the sink: %w", err)
	}
	const protoAt = l2 + 9
	code := asm.Instructions{
		asm.Mov.Reg(asm.R9, asm.R1),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Imm(asm.R6, 1),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, protoAt+1),
		asm.JGT.Reg(asm.R4, asm.R3, "count"),
		asm.LoadMem(asm.R5, asm.R2, protoAt, asm.Byte),
		asm.JNE.Imm(asm.R5, int32(wires[0].proto), "count"),
		asm.Sub.Reg(asm.R3, asm.R2), // length
	}
	for _, w := range wires {
		code = append(code, asm.JEq.Imm(asm.R3, int32(w.length), "wanted"))
	}
	code = append(code,
		asm.Ja.Label("count"),
		asm.Mov.Imm(asm.R6, 0).WithSymbol("wanted"),
		asm.StoreMem(asm.RFP, -4, asm.R6, asm.Word).WithSymbol("count"),
		asm.LoadMapPtr(asm.R1, s.counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
	)
	if sampling {
		if s.records, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(recordSize), MaxEntries: records}); err != nil {
			return nil, fmt.Errorf("map of the sink's records: %w", err)
		}
		if s.next, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1}); err != nil {
			return nil, fmt.Errorf("map of the sink's position: %w", err)
		}
		head := int32(recordHead)
		if wires[0].proto != protoESP {
			head = l2 + stampAt + 12
		}
		code = append(code,
			asm.JNE.Imm(asm.R6, 0, "drop"),
			asm.FnKtimeGetNs.Call(),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMapPtr(asm.R1, s.next.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord), // one queue, so one CPU at a time
			asm.JGE.Imm(asm.R1, records, "drop"),
			asm.Mov.Reg(asm.R2, asm.R1),
			asm.Add.Imm(asm.R2, 1),
			asm.StoreMem(asm.R0, 0, asm.R2, asm.DWord),
			asm.StoreMem(asm.RFP, -4, asm.R1, asm.Word),
			asm.LoadMapPtr(asm.R1, s.records.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "drop"),
			asm.StoreMem(asm.R0, 0, asm.R7, asm.DWord),
			asm.Mov.Reg(asm.R3, asm.R0),
			asm.Add.Imm(asm.R3, 8),
			asm.Mov.Reg(asm.R1, asm.R9),
			asm.Mov.Imm(asm.R2, 0),
			asm.Mov.Imm(asm.R4, head),
			asm.FnXdpLoadBytes.Call(),
		)
	}
	code = append(code, asm.Mov.Imm(asm.R0, verdictDrop).WithSymbol("drop"), asm.Return())
	if s.program, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: code}); err != nil {
		return nil, fmt.Errorf("sink's program: %w", err)
	}
	return s, nil
}

func (s *sink) count() uint64  { return s.read(0) }
func (s *sink) others() uint64 { return s.read(1) }

func (s *sink) read(index uint32) (n uint64) {
	var each []uint64
	if s.counts.Lookup(index, &each) != nil {
		return 0 // closed: nothing arrives any more
	}
	for _, v := range each {
		n += v
	}
	return n
}

// forget empties the records.
func (s *sink) forget() error { return s.next.Put(uint32(0), uint64(0)) }

func (s *sink) close() error {
	return errors.Join(s.program.Close(), s.counts.Close(), s.records.Close(), s.next.Close())
}
