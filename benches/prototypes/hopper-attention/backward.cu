// Prototype in CUDA C++ of a one-pass, deterministic backward pass of packed attention for Hopper: heads of 64, bf16, global layers.
// `generate.py` replaces the marker below by the WGMMA functions; `run.py` compiles, checks and times it.
//
// Block: one tile of 128 keys of a head. Warp group 0 has the producer (2 warps) and the thread that adds to the gradient of the queries;
// warp groups 1 and 2 are consumers with 64 keys each, which compute scores transposed, [64 keys, 128 queries].
//
// Order of the sums of dQ. Block j starts with the queries of tile j and continues with the next tiles (modulo the number of tiles). Tile q has two
// sums: terms of blocks q, q - 1, ..., 0 and of blocks n - 1, ..., q + 1, each in this order, by a counter per sum. Tickets, taken when a
// block starts, give later tiles to earlier blocks, so that a block waits only for blocks that have started: no deadlock. A first
// term is stored, the others are added by cp.reduce.async.bulk. `post` adds both sums and rounds.
#include <cuda_runtime.h>
#include <cuda_bf16.h>
#include <stdint.h>
#ifndef BM
#define BM 128
#endif
#ifndef ST
#define ST 2
#endif
#ifndef CREG
#define CREG 240
#endif
#ifndef PREG
#define PREG 24
#endif
#ifndef LAG
#define LAG 1
#endif
#ifndef DET
#define DET 1
#endif
#define BN 128
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
__device__ __forceinline__ float2 lds2(uint32_t a){ float2 r; asm volatile("ld.shared.v2.f32 {%0,%1},[%2];":"=f"(r.x),"=f"(r.y):"r"(a)); return r; }
// rows x 64 bf16 under the 128-byte swizzle by 64 threads
template<int ROWS> __device__ __forceinline__ void load_rows(const char* base, uint32_t pitch, uint32_t seq, int first, int len, uint32_t sm, int t){
  int chunk=t&7, r0=t>>3; uint32_t to=sm+r0*128+((chunk^r0)<<4);
  const char* s=base+chunk*16+(uint64_t)(seq+first+r0)*pitch;
  if(first+ROWS<=len){
    #pragma unroll
    for(int r=0;r<ROWS;r+=8){ asm volatile("cp.async.cg.shared.global [%0],[%1],16;"::"r"(to+r*128),"l"(s)); s+=8*(uint64_t)pitch; }
  } else {
    #pragma unroll 1
    for(int r=0;r<ROWS;r+=8){ bool in=first+r0+r<len; uint32_t b=in?16u:0u;
      asm volatile("cp.async.cg.shared.global [%0],[%1],16,%2;"::"r"(to+r*128),"l"(in?s:base),"r"(b)); s+=8*(uint64_t)pitch; }
  }
}
__device__ __forceinline__ void load_stat(const float* base, int first, int len, uint32_t sm, int t){
  #pragma unroll
  for(int i=t;i<BM;i+=64){ bool in=first+i<len; uint32_t b=in?4u:0u;
    asm volatile("cp.async.ca.shared.global [%0],[%1],4,%2;"::"r"(sm+i*4),"l"(base+(in?first+i:0)),"r"(b)); }
}
// tiles: (first row, sequence start, sequence end, index of the sequence's first tile)
extern "C" __global__ void __launch_bounds__(384,1) bwd(const char* qk, const char* v, const char* dout, const float* lse2, const float* delta, const int4* tiles,
   float* dq_acc, uint32_t* sem, __nv_bfloat16* dk, __nv_bfloat16* dv, uint32_t qk_row, uint32_t k_off, uint32_t v_row, uint32_t do_row, int heads, int total, int ntiles, float scale_log2, float scale, int work){
  extern __shared__ char smem_raw[];
  uint32_t sm=(uint32_t)__cvta_generic_to_shared(smem_raw); sm=(sm+1023)&~1023u;
  const uint32_t K=sm, V=K+BN*128, Q=V+BN*128, DO=Q+ST*BM*128, DS=DO+ST*BM*128, DQ=DS+2*BM*256, L=DQ+BM*256, D=L+ST*BM*4, B=D+ST*BM*4;
  const uint32_t fullKV=B, emptyKV=B+8, fullQ=B+16, emptyQ=fullQ+8*ST, fullO=emptyQ+8*ST, emptyO=fullO+8*ST, fullD=emptyO+8*ST, emptyD=fullD+16;
  int tid=threadIdx.x, wg=tid/128;
  __shared__ uint32_t ticket;
  if(tid==0){ ticket=atomicAdd(sem+2*heads*ntiles,1u); mbar_init(fullKV,2); mbar_init(emptyKV,8);
    for(int i=0;i<ST;i++){ mbar_init(fullQ+8*i,2); mbar_init(emptyQ+8*i,8); mbar_init(fullO+8*i,2); mbar_init(emptyO+8*i,8);}
    for(int i=0;i<2;i++){ mbar_init(fullD+8*i,4); mbar_init(emptyD+8*i,1);} asm volatile("fence.mbarrier_init.release.cluster;"); }
  __syncthreads();
  if(wg==0){
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;"::"n"(PREG));
    if(tid<64){
      int t=tid; uint32_t pend[LAG];
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
      int s=0; uint32_t ph=1, kvph=1;
      { const int w=ticket;
        // work is ordered by (sequence, head, tile): w -> sequence group from the table of work
        int4 tl=tiles[w]; int head=tl.w>>20; int seq=tl.y, len=tl.z-tl.y, k0=tl.x-seq;
        int n=(len+BM-1)/BM, j0=k0/BM;
        acquire(emptyKV,kvph); kvph^=1;
        load_rows<BN>(qk+k_off+head*128,qk_row,seq,k0,len,K,t); load_rows<BN>(v+head*128,v_row,seq,k0,len,V,t); commit(fullKV);
        int q=j0;
        for(int i=0;i<n;i++){
          acquire(emptyQ+8*s,ph); load_rows<BM>(qk+head*128,qk_row,seq,q*BM,len,Q+s*BM*128,t); load_stat(lse2+(size_t)head*total+seq,q*BM,len,L+s*BM*4,t); commit(fullQ+8*s);
          acquire(emptyO+8*s,ph); load_rows<BM>(dout+head*128,do_row,seq,q*BM,len,DO+s*BM*128,t); load_stat(delta+(size_t)head*total+seq,q*BM,len,D+s*BM*4,t); commit(fullO+8*s);
          if(++s==ST){s=0;ph^=1;}
          if(++q==n) q=0;
        }
      }
      for(int i=0;i<LAG;i++) commit(0);
    } else if(tid<96){
      uint32_t ph=0; int lane=tid&31;
      { const int w=ticket;
        int4 tl=tiles[w]; int head=tl.w>>20, tb=tl.w&0xFFFFF; int seq=tl.y, len=tl.z-tl.y, k0=tl.x-seq; int n=(len+BM-1)/BM, j0=k0/BM;
        int q=j0;
        for(int i=0;i<n;i++){
          if(lane==0){
            const int j=k0/BN; const bool second=q<j; const int rank=second? n-1-j : q-j;
            size_t at=(size_t)(second?heads*ntiles:0)+head*ntiles+tb+q;
            float* dst=dq_acc+at*(BM*64); uint32_t* sp=sem+at;
            if(DET && rank>0){ uint32_t x; do { asm volatile("ld.acquire.gpu.u32 %0,[%1];":"=r"(x):"l"(sp):"memory"); } while(x!=(uint32_t)rank); }
            for(int g=0;g<2;g++){ mbar_wait(fullD+8*g,ph);
              if(DET && rank==0) asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0],[%1],%2;"::"l"(dst+g*BM*32),"r"(DQ+g*BM*128),"r"(BM*128):"memory");
              else asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0],[%1],%2;"::"l"(dst+g*BM*32),"r"(DQ+g*BM*128),"r"(BM*128):"memory"); }
            asm volatile("cp.async.bulk.commit_group;"); asm volatile("cp.async.bulk.wait_group.read 0;":::"memory");
            mbar_arrive(emptyD); mbar_arrive(emptyD+8);
            if(DET){ asm volatile("cp.async.bulk.wait_group 0;":::"memory"); asm volatile("fence.acq_rel.gpu;":::"memory");
              asm volatile("st.release.gpu.u32 [%0],%1;"::"l"(sp),"r"((uint32_t)rank+1):"memory"); }
          }
          ph^=1; if(++q==n) q=0;
        }
      }
      if(lane==0) asm volatile("cp.async.bulk.wait_group 0;":::"memory");
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;"::"n"(CREG));
    int g=wg-1, t=tid&127, lane=t&31, warp=t>>5;
    int st_=0; uint32_t ph=0, kvph=0, dph=1; int buf=0;
    // stmatrix address of this lane within a block [BM queries][64 keys]
    uint32_t sx=(((lane>>4)*8+(lane&7))*128)+(((warp*2+((lane>>3)&1))^(lane&7))<<4);
    { const int w=ticket;
      int4 tl=tiles[w]; int head=tl.w>>20; int seq=tl.y, len=tl.z-tl.y, k0=tl.x-seq; int n=(len+BM-1)/BM;
      float ak[32],av[32];
      #pragma unroll
      for(int i=0;i<32;i++){ak[i]=0;av[i]=0;}
      mbar_wait(fullKV,kvph); kvph^=1;
      uint64_t kd=desc(K+g*64*128), vd=desc(V+g*64*128), kall=desc(K);
      int row=k0+g*64+warp*16+(lane>>2); bool edge=k0+BN>len; bool h0=row>=len, h1=row+8>=len;
      for(int i=0;i<n;i++){
        float s[BM/2], d[BM/2]; uint32_t p[BM/4];
        mbar_wait(fullQ+8*st_,ph);
        st(s,kd,desc(Q+st_*BM*128));
        mbar_wait(fullO+8*st_,ph);
        st(d,vd,desc(DO+st_*BM*128));
        uint32_t la=L+st_*BM*4+(lane&3)*8, da=D+st_*BM*4+(lane&3)*8;
        w1_64(s);
        #pragma unroll
        for(int j=0;j<BM/8;j++){ float2 l=lds2(la+j*32);
          s[4*j]=ex2(fmaf(s[4*j],scale_log2,-l.x)); s[4*j+1]=ex2(fmaf(s[4*j+1],scale_log2,-l.y));
          s[4*j+2]=ex2(fmaf(s[4*j+2],scale_log2,-l.x)); s[4*j+3]=ex2(fmaf(s[4*j+3],scale_log2,-l.y)); }
        if(edge){
          #pragma unroll
          for(int j=0;j<BM/2;j++) if((j&2)?h1:h0) s[j]=0.f; }
        w0_64(d);
        uint32_t e[BM/4];
        #pragma unroll
        for(int j=0;j<BM/8;j++){ float2 x=lds2(da+j*32);
          p[2*j]=pack(s[4*j],s[4*j+1]); p[2*j+1]=pack(s[4*j+2],s[4*j+3]);
          e[2*j]=pack(s[4*j]*(d[4*j]-x.x),s[4*j+1]*(d[4*j+1]-x.y));
          e[2*j+1]=pack(s[4*j+2]*(d[4*j+2]-x.x),s[4*j+3]*(d[4*j+3]-x.y)); }
        uint32_t dsb=DS+buf*BM*256;
        float q[32];
        products(av,ak,q,p,e,desc(DO+st_*BM*128),desc(Q+st_*BM*128),desc(dsb+g*64*128),desc(dsb+BM*128+g*64*128),kall,dsb+g*BM*128+sx);
        w2_32(av);
        if(lane==0) mbar_arrive(emptyO+8*st_);
        mbar_wait(emptyD+8*g,dph); dph^=1;
        w1_32(q);
        #pragma unroll
        for(int j=0;j<8;j++) asm volatile("st.shared.v4.f32 [%0],{%1,%2,%3,%4};"::"r"(DQ+g*BM*128+j*2048+t*16),"f"(q[4*j]),"f"(q[4*j+1]),"f"(q[4*j+2]),"f"(q[4*j+3]):"memory");
        asm volatile("fence.proxy.async.shared::cta;":::"memory"); __syncwarp();
        if(lane==0) mbar_arrive(fullD+8*g);
        w0_32(ak);
        if(lane==0) mbar_arrive(emptyQ+8*st_);
        if(++st_==ST){st_=0;ph^=1;}
        buf^=1;
      }
      if(lane==0) mbar_arrive(emptyKV);
      #pragma unroll
      for(int h=0;h<2;h++){ int r=row+8*h; if(r<len){ uint32_t at=(uint32_t)((seq+r)*heads+head)*32+(lane&3);
        uint32_t* kw=(uint32_t*)dk; uint32_t* vw=(uint32_t*)dv;
        #pragma unroll
        for(int j=0;j<8;j++){ kw[at+j*4]=pack(ak[4*j+2*h]*scale,ak[4*j+2*h+1]*scale); vw[at+j*4]=pack(av[4*j+2*h],av[4*j+2*h+1]); } } }
    }
  }
}
// dq accumulators -> bf16 rows. tiles2: (first row, seq start, seq end) per q tile; grid (ntiles, heads), 256 threads
extern "C" __global__ void post(const float4* acc, const int4* qtiles, __nv_bfloat16* dq, int heads, int ntiles, float scale){
  int T=blockIdx.x, head=blockIdx.y, t=threadIdx.x; int4 q=qtiles[T];
  const float4* src=acc+((size_t)head*ntiles+T)*(BM*16);
  int g=t>>7, u=t&127, lane=u&31, warp=u>>5; int r0=q.x, r=q.x+g*64+warp*16+(lane>>2);
  uint32_t* o=(uint32_t*)dq;
  #pragma unroll
  for(int j=0;j<8;j++){ float4 x=src[g*(BM*8)+j*128+u]; if(r0+BM<q.z){ float4 y=src[(size_t)heads*ntiles*(BM*16)+g*(BM*8)+j*128+u]; x.x+=y.x;x.y+=y.y;x.z+=y.z;x.w+=y.w; } uint32_t at=(uint32_t)(r*heads+head)*32+j*4+(lane&3);
    if(r<q.z) o[at]=pack(x.x*scale,x.y*scale); if(r+8<q.z) o[at+8*heads*32]=pack(x.z*scale,x.w*scale); }
}
extern "C" int launch(const void* qk,const void* v,const void* dout,const void* lse2,const void* delta,const void* tiles,const void* qtiles,void* acc,void* sem,void* dq,void* dk,void* dv,uint32_t qk_row,uint32_t k_off,uint32_t v_row,uint32_t do_row,int heads,int total,int ntiles,float sl,float scale,int work,void* stream){
  int bytes=BN*256+2*ST*BM*128+2*BM*256+BM*256+2*ST*BM*4+8*(2+4*ST+4)+1024+64;
  static bool once=false; if(!once){ cudaError_t e=cudaFuncSetAttribute(bwd,cudaFuncAttributeMaxDynamicSharedMemorySize,bytes); if(e) return (int)e+10000; once=true; }
  cudaStream_t s=(cudaStream_t)stream;
  if(DET) cudaMemsetAsync(sem,0,4*(2*(size_t)heads*ntiles+1),s); else { cudaMemsetAsync(sem,0,4*(2*(size_t)heads*ntiles+1),s); } if(!DET) cudaMemsetAsync(acc,0,2*(size_t)heads*ntiles*BM*256,s);
  bwd<<<work,384,bytes,s>>>((const char*)qk,(const char*)v,(const char*)dout,(const float*)lse2,(const float*)delta,(const int4*)tiles,(float*)acc,(uint32_t*)sem,(__nv_bfloat16*)dk,(__nv_bfloat16*)dv,qk_row,k_off,v_row,do_row,heads,total,ntiles,sl,scale,work);
  post<<<dim3(ntiles,heads),256,0,s>>>((const float4*)acc,(const int4*)qtiles,(__nv_bfloat16*)dq,heads,ntiles,scale);
  return (int)cudaGetLastError();
}
