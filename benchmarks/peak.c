/* What one core computes at most: prints 10^9 multiply-adds a second in float32, bfloat16 and int8, 0 where the
   processor lacks the instructions. Chains of independent multiply-adds fill both units, and nothing is loaded. */
#include <immintrin.h>
#include <stdio.h>
#include <time.h>

/* Tries take a third of a millisecond: of so many, one is not interrupted, also on a machine that others use. */
enum { CHAINS = 12, STEPS = 100000, TRIES = 600 };

static double now_s(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + 1e-9 * time.tv_nsec;
}

/* VECTOR acc = STEP(acc, left, right) computes MACS multiply-adds. */
#define PEAK(NAME, TARGET, VECTOR, STEP, MACS)                                        \
  __attribute__((target(TARGET))) static double NAME(void) {                          \
    double best_s = 1e9;                                                              \
    for (int attempt = 0; attempt < TRIES; attempt++) {                               \
      VECTOR acc[CHAINS] = {0}, left = {0}, right = {0};                              \
      __asm__ volatile("" : "+v"(left), "+v"(right)); /* Unknown, and each chain another. */ \
      for (int chain = 0; chain < CHAINS; chain++) __asm__ volatile("" : "+v"(acc[chain])); \
      double start_s = now_s();                                                       \
      for (int step = 0; step < STEPS; step++)                                        \
        _Pragma("GCC unroll 12") for (int chain = 0; chain < CHAINS; chain++)         \
            acc[chain] = STEP(acc[chain], left, right);                               \
      for (int chain = 0; chain < CHAINS; chain++) __asm__ volatile("" ::"v"(acc[chain])); \
      double taken_s = now_s() - start_s;                                             \
      best_s = taken_s < best_s ? taken_s : best_s;                                   \
    }                                                                                 \
    return 1e-9 * STEPS * CHAINS * (MACS) / best_s;                                   \
  }

#define FMA512(acc, left, right) _mm512_fmadd_ps(left, right, acc)
#define FMA256(acc, left, right) _mm256_fmadd_ps(left, right, acc)
#define BF16(acc, left, right) _mm512_dpbf16_ps(acc, (__m512bh)(left), (__m512bh)(right))

PEAK(float32_512, "avx512f", __m512, FMA512, 16)
PEAK(float32_256, "avx2,fma", __m256, FMA256, 8)
PEAK(bfloat16_512, "avx512f,avx512bf16", __m512, BF16, 32)
PEAK(int8_512, "avx512f,avx512vnni", __m512i, _mm512_dpbusd_epi32, 64)

int main(void) {
  __builtin_cpu_init();
  int wide = __builtin_cpu_supports("avx512f");
  double float32 = wide ? float32_512() : __builtin_cpu_supports("fma") ? float32_256() : 0;
  double bfloat16 = wide && __builtin_cpu_supports("avx512bf16") ? bfloat16_512() : 0;
  double int8 = wide && __builtin_cpu_supports("avx512vnni") ? int8_512() : 0;
  printf("%.1f %.1f %.1f\n", float32, bfloat16, int8);
}
