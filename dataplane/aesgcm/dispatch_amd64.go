package aesgcm

import "github.com/klauspost/cpuid/v2"

// assembled lists the implementations in assembly. One that has the instructions it needs
// is available if it gives known answers: a machine, or an emulator of one, that
// computes wrongly is not to be trusted with traffic.
func assembled() []implementation {
	all := []implementation{
		{name: "vaes", expand: expandAssembly, seal: overBatch(sealVAES), open: overBatch(openVAES),
			supported: cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ)},
		{name: "aesni", expand: expandAssembly, seal: overBatch(sealAESNI), open: overBatch(openAESNI),
			supported: cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX)},
	}
	for i := range all {
		all[i].available = all[i].supported && givesKnownAnswers(&all[i])
	}
	return all
}
