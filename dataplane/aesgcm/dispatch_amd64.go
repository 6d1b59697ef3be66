package aesgcm

import "github.com/klauspost/cpuid/v2"

// assembled lists the implementations in assembly. One that has the instructions it needs
// is available if it gives known answers: a machine, or an emulator of one, that
// computes wrongly is not to be trusted with traffic.
func assembled() []implementation {
	all := []implementation{
		{name: "avx512", expand: expandAssembly, seal: overBatch(bySize(sealVAES, sealAVX512, sealWideMin)), open: overBatch(bySize(openVAES, openAVX512, openWideMin)),
			supported: cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.BMI2, cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.VAES, cpuid.VPCLMULQDQ)},
		{name: "vaes", expand: expandAssembly, seal: overBatch(assembly(sealVAES).on), open: overBatch(assembly(openVAES).on),
			supported: cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX2, cpuid.VAES, cpuid.VPCLMULQDQ)},
		{name: "aesni", expand: expandAssembly, seal: overBatch(assembly(sealAESNI).on), open: overBatch(assembly(openAESNI).on),
			supported: cpuid.CPU.Supports(cpuid.AESNI, cpuid.CLMUL, cpuid.AVX)},
	}
	for i := range all {
		all[i].available = all[i].supported && givesKnownAnswers(&all[i])
	}
	return all
}
