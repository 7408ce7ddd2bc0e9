// Prototype in CUDA C++ of a warp-specialized forward pass of packed attention for Hopper: heads of 64, bf16, global layers.
// `generate.py` replaces the marker below by the WGMMA functions; `run.py` compiles, checks and times it.
//
// Block: warp group 0 is the producer (cp.async, one stage handed over LAG commits later), warp groups 1 to NWG are consumers with 64 queries
// each. Persistent: a block loops over (tile of queries, head). Keys and values pass through ST stages of BN keys, from the end of the
// sequence to its start. Barriers of a stage: full (the producer's 4 warps arrive), empty (the consumers' warps arrive). Named barriers
// 1 + group let the consumers alternate in starting WGMMAs. A row's reference follows its maximum only when that exceeds it by RESC (log2).
#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <stdint.h>
#ifndef NWG
#define NWG 3
#endif
#ifndef ST
#define ST 3
#endif
#ifndef SCHED
#define SCHED 1
#endif
#ifndef CREG
#define CREG 160
#endif
#ifndef PREG
#define PREG 32
#endif
#ifndef RESC
#define RESC 8
#endif
#ifndef LAG
#define LAG 2
#endif
//@WGMMA@
__device__ __forceinline__ void mbar_init(uint32_t b, uint32_t n){ asm volatile("mbarrier.init.shared.b64 [%0], %1;"::"r"(b),"r"(n)); }
__device__ __forceinline__ void mbar_arrive(uint32_t b){ asm volatile("mbarrier.arrive.shared.b64 _, [%0];"::"r"(b):"memory"); }
__device__ __forceinline__ void mbar_wait(uint32_t b, uint32_t ph){
  asm volatile("{ .reg .pred p; W: mbarrier.try_wait.parity.shared.b64 p, [%0], %1; @!p bra W; }"::"r"(b),"r"(ph):"memory"); }
__device__ __forceinline__ bool mbar_test(uint32_t b, uint32_t ph){ uint32_t r;
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }":"=r"(r):"r"(b),"r"(ph):"memory"); return __all_sync(~0u,r); }
__device__ __forceinline__ uint64_t desc(uint32_t a){ return (uint64_t)((a & 0x3FFFF)>>4) | (1ull<<16) | ((uint64_t)64<<32) | (1ull<<62); }
template<int N> __device__ __forceinline__ void wait(){ asm volatile("wgmma.wait_group.sync.aligned %0;"::"n"(N):"memory"); }
template<int N> __device__ __forceinline__ void hold(float (&d)[N]){
#pragma unroll
 for(int i=0;i<N;i++) asm volatile("":"+f"(d[i])::"memory"); }
__device__ __forceinline__ float ex2(float x){ float y; asm("ex2.approx.ftz.f32 %0, %1;":"=f"(y):"f"(x)); return y; }
__device__ __forceinline__ uint32_t pack(float a, float b){ uint32_t r; asm("cvt.rn.bf16x2.f32 %0, %1, %2;":"=r"(r):"f"(b),"f"(a)); return r; }
__device__ __forceinline__ void nbar_sync(int id,int n){ asm volatile("bar.sync %0, %1;"::"r"(id),"r"(n):"memory"); }
__device__ __forceinline__ void nbar_arrive(int id,int n){ asm volatile("bar.arrive %0, %1;"::"r"(id),"r"(n):"memory"); }


// rows x 64 bf16 rows under the 128-byte swizzle by 128 threads; rows past the end become zeros
template<int ROWS> __device__ __forceinline__ void load_rows(const char* base, uint32_t pitch, uint32_t seq, int first, int len, uint32_t sm, int t){
  int chunk=t&7, r0=t>>3; uint32_t to=sm+r0*128+((chunk^(r0&7))<<4);
  const char* s=base+chunk*16+(uint64_t)(seq+first+r0)*pitch;
  if(first+ROWS<=len){
    #pragma unroll
    for(int r=0;r<ROWS;r+=16){ asm volatile("cp.async.cg.shared.global [%0],[%1],16;"::"r"(to+r*128),"l"(s)); s+=16*(uint64_t)pitch; }
  } else {
    #pragma unroll 1
    for(int r=0;r<ROWS;r+=16){ bool in=first+r0+r<len; uint32_t b=in?16u:0u;
      asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;"::"r"(to+r*128),"l"(in?s:base),"r"(b)); s+=16*(uint64_t)pitch; }
  }
}
extern "C" __global__ void __launch_bounds__(128*(NWG+1),1) fwd(const char* qk, const char* v, const uint3* tiles, __nv_bfloat16* out, float* lse,
   uint32_t qk_row, uint32_t k_off, uint32_t v_row, int heads, int total, float scale_log2, int work){
  extern __shared__ char smem_raw[];
  uint32_t sm=(uint32_t)__cvta_generic_to_shared(smem_raw); sm=(sm+1023)&~1023u;
  const uint32_t Q=sm, K=sm+2*NWG*64*128, V=K+ST*BN*128, B=V+ST*BN*128;
  const uint32_t fullQ=B, emptyQ=B+16, fullK=B+32, emptyK=fullK+8*ST, fullV=emptyK+8*ST, emptyV=fullV+8*ST;
  int tid=threadIdx.x, wg=tid/128;
  if(tid==0){ for(int i=0;i<2;i++){ mbar_init(fullQ+8*i,4); mbar_init(emptyQ+8*i,NWG*4);} for(int i=0;i<ST;i++){ mbar_init(fullK+8*i,4); mbar_init(fullV+8*i,4); mbar_init(emptyK+8*i,NWG*4); mbar_init(emptyV+8*i,NWG*4);} asm volatile("fence.mbarrier_init.release.cluster;"); }
  __syncthreads();
  if(wg==0){
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;"::"n"(PREG));
    int t=tid;
    uint32_t pend[LAG];  // barriers of the copies in flight
    #pragma unroll
    for(int i=0;i<LAG;i++) pend[i]=0;
    auto commit=[&](uint32_t bar){
      asm volatile("cp.async.commit_group;"); asm volatile("cp.async.wait_group %0;"::"n"(LAG):"memory");
      asm volatile("fence.proxy.async.shared::cta;":::"memory"); __syncwarp();
      if(pend[0] && (t&31)==0) mbar_arrive(pend[0]);
      #pragma unroll
      for(int i=0;i+1<LAG;i++) pend[i]=pend[i+1];
      pend[LAG-1]=bar;
    };
      auto acquire=[&](uint32_t bar, uint32_t phase){
        if(mbar_test(bar,phase)) return;
        asm volatile("cp.async.wait_group 0;":::"memory"); asm volatile("fence.proxy.async.shared::cta;":::"memory"); __syncwarp();
        #pragma unroll
        for(int i=0;i<LAG;i++){ if(pend[i] && (t&31)==0) mbar_arrive(pend[i]); pend[i]=0; }
        mbar_wait(bar,phase);
      };
    int s=0; uint32_t ph=1; int qs=0; uint32_t qph=1;
    for(int w=blockIdx.x;w<work;w+=gridDim.x){
      uint3 tile=tiles[w/heads]; int seq=tile.y, len=(int)tile.z-(int)tile.y, q0=(int)tile.x-seq; int head=w%heads;
      int n=(len+BN-1)/BN;
      const char* qb=qk+head*128; const char* kb=qb+k_off; const char* vb=v+head*128;
      acquire(emptyQ+8*qs,qph); load_rows<NWG*64>(qb,qk_row,seq,q0,len,Q+qs*NWG*64*128,t); commit(fullQ+8*qs);
      if(++qs==2){qs=0;qph^=1;}
      for(int j=n-1;j>=0;j--){
        acquire(emptyK+8*s,ph); load_rows<BN>(kb,qk_row,seq,j*BN,len,K+s*BN*128,t); commit(fullK+8*s);
        acquire(emptyV+8*s,ph); load_rows<BN>(vb,v_row,seq,j*BN,len,V+s*BN*128,t); commit(fullV+8*s);
        if(++s==ST){s=0;ph^=1;}
      }
    }
    for(int i=0;i<LAG;i++) commit(0);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;"::"n"(CREG));
    int g=wg-1, t=tid&127, lane=t&31, warp=t>>5;
    const int NB=256;
    if(SCHED && g==0) nbar_arrive(1+0, NB);
    int st=0; uint32_t ph=0; int qs=0; uint32_t qph=0;
    for(int w=blockIdx.x;w<work;w+=gridDim.x){
    uint3 tile=tiles[w/heads]; int seq=tile.y, len=(int)tile.z-(int)tile.y, q0=(int)tile.x-seq; int head=w%heads;
    int n=(len+BN-1)/BN;
    float o[32];
    #pragma unroll
    for(int i=0;i<32;i++) o[i]=0.f;
    float s[BN/2]; uint32_t p[BN/4];
    float m0=-INFINITY,m1=-INFINITY,l0=0,l1=0;
    uint64_t qd=desc(Q+(qs*NWG+g)*64*128);
    mbar_wait(fullQ+8*qs,qph);
    mbar_wait(fullK+8*st,ph);
    if(SCHED) nbar_sync(1+g,NB);
    QK(s,qd,desc(K+st*BN*128));
    if(SCHED) nbar_arrive(1+(g+1)%NWG,NB);
    wait<0>(); hold(s);
    if(lane==0){ mbar_arrive(emptyK+8*st); if(n==1) mbar_arrive(emptyQ+8*qs); }
    { int left=len-(n-1)*BN-(lane&3)*2; if(len<n*BN){
      #pragma unroll
      for(int i=0;i<BN/2;i++) if((i/4)*8+(i&1)>=left) s[i]=-INFINITY; } }
    float c0,c1;
    auto softmax=[&](bool first){
      float a0=fmaxf(s[0],s[1]),a1=fmaxf(s[2],s[3]);
      #pragma unroll
      for(int i=4;i<BN/2;i+=4){ a0=fmaxf(a0,fmaxf(s[i],s[i+1])); a1=fmaxf(a1,fmaxf(s[i+2],s[i+3])); }
      a0=fmaxf(a0,__shfl_xor_sync(~0u,a0,1)); a1=fmaxf(a1,__shfl_xor_sync(~0u,a1,1));
      a0=fmaxf(a0,__shfl_xor_sync(~0u,a0,2)); a1=fmaxf(a1,__shfl_xor_sync(~0u,a1,2));
      a0*=scale_log2; a1*=scale_log2;     // m0, m1 are in units of log2
      if(RESC){
        float n0=a0>m0+RESC?a0:m0, n1=a1>m1+RESC?a1:m1;
        c0=ex2(m0-n0); c1=ex2(m1-n1); m0=n0; m1=n1;
      } else { float n0=fmaxf(m0,a0),n1=fmaxf(m1,a1); c0=ex2(m0-n0); c1=ex2(m1-n1); m0=n0; m1=n1; }
      float b0=0,b1=0;
      #pragma unroll
      for(int i=0;i<BN/2;i++){ float x=fmaf(s[i],scale_log2,(i&2)?-m1:-m0); s[i]=ex2(x); }
      #pragma unroll
      for(int i=0;i<BN/2;i+=4){ b0+=s[i]+s[i+1]; b1+=s[i+2]+s[i+3]; }
      l0=fmaf(l0,c0,b0); l1=fmaf(l1,c1,b1);
    };
    softmax(true);
    #pragma unroll
    for(int i=0;i<BN/4;i++) p[i]=pack(s[2*i],s[2*i+1]);
    for(int j=1;j<n;j++){
      int sv=st; uint32_t phv=ph; if(++st==ST){st=0;ph^=1;}
      mbar_wait(fullK+8*st,ph);
      if(SCHED) nbar_sync(1+g,NB);
      QK(s,qd,desc(K+st*BN*128));
      mbar_wait(fullV+8*sv,phv);
      PV(o,p,desc(V+sv*BN*128));
      if(SCHED) nbar_arrive(1+(g+1)%NWG,NB);
      wait<1>(); hold(s);
      if(lane==0){ mbar_arrive(emptyK+8*st); if(j==n-1) mbar_arrive(emptyQ+8*qs); }
      softmax(false);
      wait<0>(); hold(o);
      if(lane==0) mbar_arrive(emptyV+8*sv);
      #pragma unroll
      for(int i=0;i<BN/4;i++) p[i]=pack(s[2*i],s[2*i+1]);
      if(!RESC || __any_sync(~0u,c0!=1.f||c1!=1.f)){
        #pragma unroll
        for(int i=0;i<32;i++) o[i]*=(i&2)?c1:c0;
      }
    }
    if(++qs==2){qs=0;qph^=1;}
    mbar_wait(fullV+8*st,ph);
    PV(o,p,desc(V+st*BN*128)); 
    l0+=__shfl_xor_sync(~0u,l0,1); l0+=__shfl_xor_sync(~0u,l0,2); l1+=__shfl_xor_sync(~0u,l1,1); l1+=__shfl_xor_sync(~0u,l1,2);
    float i0=1.f/l0,i1=1.f/l1; int r0=q0+g*64+warp*16+(lane>>2);
    wait<0>(); hold(o);
    if(lane==0) mbar_arrive(emptyV+8*st);
    if(++st==ST){st=0;ph^=1;}
    uint32_t* ow=(uint32_t*)out;
    #pragma unroll
    for(int h=0;h<2;h++){ int r=r0+8*h; if(r<len){ uint32_t at=(uint32_t)((seq+r)*heads+head)*32+(lane&3);
      #pragma unroll
      for(int jj=0;jj<8;jj++) ow[at+jj*4]= h? pack(o[jj*4+2]*i1,o[jj*4+3]*i1):pack(o[jj*4]*i0,o[jj*4+1]*i0);
      if((lane&3)==0) lse[head*total+seq+r]=(h?m1+log2f(l1):m0+log2f(l0))*0.69314718f; } }
    }
    if(SCHED && g==0) nbar_sync(1+0,NB);
  }
}
extern "C" int launch(const void* qk,const void* v,const void* tiles,void* out,void* lse,uint32_t qk_row,uint32_t k_off,uint32_t v_row,int heads,int total,float sl,int nt,void* stream){
  int bytes=2*NWG*64*128+2*ST*BN*128+1024+8*(4+4*ST)+64;
  static bool once=false; if(!once){ cudaFuncSetAttribute(fwd,cudaFuncAttributeMaxDynamicSharedMemorySize,bytes); once=true; }
  int work=heads*nt; int grid=PERSIST? (work<132?work:132):work;
  fwd<<<grid,128*(NWG+1),bytes,(cudaStream_t)stream>>>((const char*)qk,(const char*)v,(const uint3*)tiles,(__nv_bfloat16*)out,(float*)lse,qk_row,k_off,v_row,heads,total,sl,work);
  return (int)cudaGetLastError();
}
