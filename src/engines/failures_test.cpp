#include "engines/failures.h"

#include "engines/testing.h"

namespace gpumod {
namespace {

using namespace testing_engines;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Class = FailureCause::Class;

FailureCause vllm(std::string_view log) {
  return engine_for(EngineKind::vllm).classify(log_of(log));
}
FailureCause llama(std::string_view log) {
  return engine_for(EngineKind::llamacpp).classify(log_of(log));
}

TEST(FailurePattern, Holes) {
  EXPECT_THAT(match_pattern("a <n> b", "x A 1,024 B").value(), ElementsAre("1,024"));
  EXPECT_THAT(match_pattern("is <n>", "it is 12288. Try").value(), ElementsAre("12288"));
  EXPECT_THAT(match_pattern("'<t>', <n>*: use", "('h', 80): q: use").value(), ElementsAre("h", "80"));
  EXPECT_THAT(match_pattern("<w> is", "the org/x-1.5 is").value().back(), "org/x-1.5");
  EXPECT_THAT(match_pattern("tail <t>", "tail of it").value(), ElementsAre("of it"));
  EXPECT_THAT(match_pattern("a*b <n>", "a b x b 7").value(), ElementsAre("7"));
  EXPECT_FALSE(match_pattern("a <n> b", "a x b"));
  EXPECT_FALSE(match_pattern("abc", "ab"));
}

TEST(FailurePattern, NoLineKeepsUs) {
  // Many false starts for every hole: without a bound this would take hours.
  std::string line;
  for (int i = 0; i < 2000; ++i)
    line += "(1/";
  EXPECT_FALSE(match_pattern("*(<n>*(<n>*(<n>*(<n>*(<n>*(<n>*end", line));
}

TEST(FailureVllm, NotEnoughFreeMemoryIsTransient) {
  const auto cause = vllm(
      "(EngineCore_DP0 pid=4711) ERROR 02-09 21:03:11 [core.py:842] ValueError: Free memory on device (10.52/23.64 "
      "GiB) on "
      "startup is less than desired GPU memory utilization (0.9, 21.28 GiB). Decrease GPU memory utilization or reduce "
      "GPU "
      "memory used by other processes.");
  EXPECT_EQ(cause.kind, Class::transient);
  EXPECT_EQ(cause.cause, "only 10.52 of 23.64 GiB were free at start, and gpu_memory_utilization 0.9 claims 21.28 GiB");
  EXPECT_FALSE(cause.remedy.empty());
  EXPECT_THAT(cause.line, HasSubstr("core.py:842"));
}

TEST(FailureVllm, TheFirstCauseAndNotTheLineThatPointsBack) {
  const auto cause = vllm(
      "INFO 02-09 21:03:01 [config.py:1] ValueError: this is only told\n"
      "(EngineCore_0 pid=9) WARNING 02-09 21:03:02 [x.py:1] ImportError: No available memory for the cache blocks is "
      "what another build would say\n"
      "(EngineCore_0 pid=9) ERROR 02-09 21:03:09 [core.py:1] Traceback (most recent call last):\n"
      "(EngineCore_0 pid=9) ERROR 02-09 21:03:09 [core.py:1] AssertionError: Error in memory profiling. Initial free "
      "memory "
      "10.1 GiB, current free memory 12.4 GiB. This happens when other processes release memory.\n"
      "(APIServer pid=8) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
      "{}");
  EXPECT_EQ(cause.kind, Class::transient);
  EXPECT_THAT(cause.cause, HasSubstr("free before: 10.1 GiB, after: 12.4 GiB"));
}

TEST(FailureVllm, AnUnknownExceptionIsShownAsItIs) {
  const auto cause = vllm(
      "(EngineCore_0 pid=9) ERROR 02-09 21:03:09 [core.py:1] Traceback (most recent call last):\n"
      "(EngineCore_0 pid=9) ERROR 02-09 21:03:09 [core.py:1]     raise FluxError('x')\n"
      "(EngineCore_0 pid=9) ERROR 02-09 21:03:09 [core.py:1] vllm.flux.FluxError: the flux is out\n"
      "RuntimeError: Engine core initialization failed. See root cause above.");
  EXPECT_EQ(cause.kind, Class::unknown);
  EXPECT_EQ(cause.cause, "vllm.flux.FluxError: the flux is out");
  const auto alone = vllm("RuntimeError: Engine core initialization failed. See root cause above.");
  EXPECT_THAT(alone.cause, HasSubstr("Engine core initialization failed"));
}

TEST(FailureVllm, TheRemedyCarriesTheNumber) {
  auto cause = vllm(
      "ValueError: To serve at least one request with the model's max seq len (131072), (24.00 GiB KV cache is needed, "
      "which "
      "is larger than the available KV cache memory (2.25 GiB). Based on the available memory, the estimated maximum "
      "model "
      "length is 12288. Try increasing `gpu_memory_utilization`.");
  EXPECT_EQ(cause.kind, Class::configuration);
  EXPECT_EQ(cause.cause, "max_model_len 131072 needs 24.00 GiB of KV cache, and 2.25 GiB are left for it");
  EXPECT_EQ(cause.remedy, "Lower max_model_len to 12288, or raise gpu_memory_utilization.");
  cause = vllm(
      "ValueError: The model's max seq len (40960) is larger than the maximum number of tokens that can be stored in "
      "KV "
      "cache (12288). Try increasing");
  EXPECT_THAT(cause.remedy, HasSubstr("to 12288"));
  cause = vllm(
      "ValueError: User-specified max_model_len (65536) is greater than the derived max_model_len "
      "(max_position_embeddings=32768 or model_max_length=None in model's config.json).");
  EXPECT_EQ(cause.remedy, "Lower max_model_len to 32768.");
}

TEST(FailureVllm, Classes) {
  const std::pair<const char*, Class> cases[] = {
      {"ValueError: No available memory for the cache blocks. Try increasing", Class::configuration},
      {"OSError: [Errno 98] Address already in use", Class::transient},
      {"AttributeError: Qwen2Tokenizer object has no attribute 'all_special_ids'. Did you mean", Class::model},
      {"ValueError: Model architectures ['FooForCausalLM'] are not supported for now.", Class::model},
      {"OSError: a/b does not appear to have a file named config.json. Checkout", Class::model},
      {"OSError: You are trying to access a gated repo.", Class::model},
      {"huggingface_hub.errors.LocalEntryNotFoundError: Cannot find the requested files", Class::model},
      {"vllm: error: unrecognized arguments: --max-modle-len", Class::configuration},
      {"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has", Class::configuration},
      {"ModuleNotFoundError: No module named 'flash_attn'", Class::configuration},
  };
  for (const auto& [line, kind] : cases)
    EXPECT_EQ(vllm(line).kind, kind) << line;
  EXPECT_EQ(vllm(cases[6].first).remedy, "Download it first: hf download MODEL");
  EXPECT_EQ(vllm(cases[8].first).cause, "the GPU had no room for 2.00 GiB more");
}

TEST(FailureLlama, PortsMemoryModelsArguments) {
  auto cause =
      llama("0.00.015 E srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18112");
  EXPECT_EQ(cause.kind, Class::transient);
  EXPECT_EQ(cause.cause, "port 18112 is already in use");

  cause = llama(
      "0.00.1 W srv  llama_server: error loading model: only a warning\n"
      "0.00.2 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 0: cudaMalloc failed: "
      "out of memory\n"
      "0.00.3 E llama_model_load: error loading model: unable to allocate CUDA0 buffer");
  EXPECT_EQ(cause.kind, Class::configuration);
  EXPECT_EQ(cause.cause, "GPU 0 had no room for 20480.00 MiB");

  cause = llama(
      "[55433] 0.00.023.659 E llama_model_load: error loading model: check_tensor_dims: tensor 'token_embd.weight' not "
      "found");
  EXPECT_EQ(cause.kind, Class::model);
  EXPECT_THAT(cause.cause, HasSubstr("token_embd.weight"));

  cause = llama("0.0 E gguf_init_from_file: failed to open GGUF file '/m/none.gguf' (No such file or directory)");
  EXPECT_EQ(cause.cause, "the model file /m/none.gguf cannot be opened: No such file or directory");

  EXPECT_EQ(llama("error: invalid argument: --bogus").kind, Class::configuration);
  EXPECT_EQ(llama("llama_kv_cache_unified: failed to allocate buffer for kv cache").kind, Class::configuration);
  EXPECT_EQ(llama("graph_reserve: failed to allocate compute pp buffers").kind, Class::configuration);
  EXPECT_EQ(llama("llama_model_load: error loading model: unknown model architecture: 'zeta'").cause,
            "this llama.cpp does not know the architecture zeta");
  EXPECT_EQ(llama("0.00.1 E srv  load_model: something new").kind, Class::unknown);
  EXPECT_EQ(llama("0.00.1 E srv  load_model: something new").cause, "srv  load_model: something new");
  EXPECT_EQ(llama("0.00.1 I all is well").cause, "");
}

TEST(FailureUvicorn, PortAndApplication) {
  const auto& engine = engine_for(EngineKind::fastapi);
  auto cause = engine.classify(log_of(
      "INFO:     Started server process [7]\n"
      "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8203): address already in use"));
  EXPECT_EQ(cause.kind, Class::transient);
  EXPECT_EQ(cause.cause, "port 8203 is already in use");
  cause =
      engine.classify(log_of("ERROR:    Error loading ASGI app. Attribute \"app\" not found in module \"asr.main\"."));
  EXPECT_EQ(cause.cause, "the module asr.main has no app");
}

TEST(FailureAny, TheMachine) {
  for (const auto kind : {EngineKind::vllm, EngineKind::llamacpp, EngineKind::fastapi, EngineKind::command}) {
    const auto cause =
        engine_for(kind).classify(log_of("/x/server: error while loading shared libraries: libcudart.so.12: cannot "
                                         "open shared object file: No such file"));
    EXPECT_EQ(cause.cause, "the shared library libcudart.so.12 is missing");
    EXPECT_EQ(engine_for(kind).classify({}).kind, Class::unknown);
  }
}

TEST(FailureAny, HostileLines) {
  std::string endless(1'000'000, '(');
  EXPECT_EQ(vllm(endless).kind, Class::unknown);
  EXPECT_EQ(llama(std::string(100'000, '[')).kind, Class::unknown);
  EXPECT_EQ(vllm("Error: \x1b[2J\xff").cause.find('\x1b'), std::string::npos);
}

/// A remedy that speaks of {2} where the pattern captures one hole would show a question mark to people.
TEST(FailureCatalogue, EveryPlaceholderHasItsHole) {
  for (const auto kind : {EngineKind::vllm, EngineKind::llamacpp, EngineKind::fastapi, EngineKind::command}) {
    for (const auto* signature : signatures_of(kind)) {
      const auto holes = std::count(signature->pattern.begin(), signature->pattern.end(), '<');
      for (const auto text : {signature->cause, signature->remedy})
        for (std::size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1))
          EXPECT_LE(text[at + 1] - '0', holes) << signature->pattern;
      EXPECT_FALSE(signature->cause.empty());
      EXPECT_FALSE(signature->remedy.empty()) << signature->pattern;
      EXPECT_NE(signature->kind, Class::unknown);
    }
  }
}

}  // namespace
}  // namespace gpumod
