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

TEST(FailureVllm, TheFiguresOfAnOutOfMemoryError) {
  const auto cause = vllm(
      "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] EngineCore failed to start.\n"
      "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] Traceback (most recent call last):\n"
      "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700]   File \"/opt/vllm/model_loader.py\", line 49, in "
      "load\n"
      "(EngineCore_DP0 pid=812) ERROR 11-20 09:12:44 [core.py:700] torch.OutOfMemoryError: CUDA out of memory. Tried "
      "to allocate 1.25 GiB. GPU 0 has a total capacity of 23.53 GiB of which 918.44 MiB is free. Including "
      "non-PyTorch memory, this process has 22.61 GiB memory in use.\n"
      "(APIServer pid=790) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): "
      "{'EngineCore_DP0': 1}");
  EXPECT_EQ(cause.kind, Class::configuration);
  EXPECT_EQ(cause.cause, "the GPU had no room for 1.25 GiB more: 918.44 MiB of 23.53 GiB were free");
}

TEST(FailureVllm, WhatTheHardwareCannotDo) {
  EXPECT_EQ(vllm("ValueError: The quantization method modelopt_fp4 is not supported for the current GPU. Minimum "
                 "capability: 100. Current capability: 89.")
                .cause,
            "this GPU cannot compute modelopt_fp4 (it needs capability 100, and has 89)");
  EXPECT_EQ(
      vllm("ValueError: Total number of attention heads (40) must be divisible by tensor parallel size (3).").remedy,
      "Set tensor_parallel_size to a number that divides 40.");
  EXPECT_EQ(
      vllm("ValueError: invalid literal for int() with base 10: 'MIG-377e0049-554c-540b-93c6-d0976f8426cb'").remedy,
      "Update vLLM: since 0.24 it reads UUIDs. Or let its gpu: name a whole GPU.");
  EXPECT_EQ(vllm("RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your "
                 "GPU driver by downloading and installing a new version")
                .cause,
            "the GPU's driver is too old for this program (it reports 11040)");
  EXPECT_EQ(vllm("RuntimeError: CUDA driver version is insufficient for CUDA runtime version").kind,
            Class::configuration);
}

TEST(FailureVllm, TokenizersArchitecturesFilesAndGates) {
  EXPECT_EQ(vllm("ValueError: Tokenizer class TekkenTokenizer does not exist or is not currently imported.").cause,
            "transformers does not know the tokenizer TekkenTokenizer");
  EXPECT_EQ(vllm("ValueError: There is no module or parameter named 'lm_head.scale' in LlamaForCausalLM").cause,
            "the weights hold lm_head.scale, which LlamaForCausalLM has no place for");
  const auto gated = vllm(
      "OSError: You are trying to access a gated repo.\n"
      "Make sure to have access to it at https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct.\n"
      "403 Client Error. (Request ID: Root=1-66)\n"
      "Cannot access gated repo for url "
      "https://huggingface.co/meta-llama/Llama-3.1-8B-Instruct/resolve/main/config.json");
  EXPECT_EQ(gated.kind, Class::model);
  EXPECT_THAT(gated.remedy, HasSubstr("HF_TOKEN"));
}

TEST(FailureLlama, ThreeWaysToRunOutOfMemory) {
  const auto kv = llama(
      "0.02.115 I llama_kv_cache: size = 40960.00 MiB\n"
      "0.02.131 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 40960.00 MiB on device 0: cudaMalloc failed: "
      "out of memory\n"
      "0.02.131 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 42949672960\n"
      "0.02.133 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache");
  EXPECT_EQ(kv.cause, "GPU 0 had no room for 40960.00 MiB") << "the first cause carries the figure";
  EXPECT_EQ(
      llama("0.1 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache")
          .remedy,
      "Lower context_size, or free the GPU first.");
  EXPECT_THAT(llama("0.1 E graph_reserve: failed to allocate compute pp buffers").remedy, HasSubstr("--ubatch-size"));
  EXPECT_EQ(llama("0.1 E llama_model_load: error loading model: unable to allocate CUDA0 buffer").kind,
            Class::configuration)
      << "too little memory is no broken model";
}

TEST(FailureAny, ThePortIsNamedForWhoeverCanSeeItsHolder) {
  auto cause = llama("0.1 E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 7070");
  EXPECT_EQ(cause.subject, FailureCause::Subject::port);
  EXPECT_EQ(cause.subject_name, "7070");
  cause = vllm("OSError: [Errno 98] Address already in use");
  EXPECT_EQ(cause.subject, FailureCause::Subject::port);
  EXPECT_EQ(cause.subject_name, "");
  cause = engine_for(EngineKind::fastapi)
              .classify(log_of("ERROR:    [Errno 98] error while attempting to bind on address ('0.0.0.0', 8203): "
                               "address already in use"));
  EXPECT_EQ(cause.subject_name, "8203");
}

TEST(FailureAny, APythonThatIsGone) {
  for (const auto kind : {EngineKind::vllm, EngineKind::fastapi, EngineKind::llamacpp}) {
    const auto cause = engine_for(kind).classify(
        log_of("gpumod-chat.service: Failed at step EXEC spawning /opt/venv/bin/vllm: No such file or directory\n"
               "gpumod-chat.service: Main process exited, code=exited, status=203/EXEC"));
    EXPECT_EQ(cause.cause, "/opt/venv/bin/vllm could not be started: No such file or directory");
    EXPECT_EQ(cause.subject, FailureCause::Subject::program);
    EXPECT_EQ(cause.subject_name, "/opt/venv/bin/vllm");
  }
  EXPECT_EQ(vllm("gpumod: cannot execute /opt/venv/bin/vllm: No such file or directory").subject_name,
            "/opt/venv/bin/vllm");
  EXPECT_THAT(vllm("ModuleNotFoundError: No module named 'encodings'").remedy, HasSubstr("virtual environment anew"));
}

TEST(FailurePython, Imports) {
  const auto& engine = engine_for(EngineKind::fastapi);
  const auto cause = [&](const char* text) { return engine.classify(log_of(text)).cause; };
  EXPECT_EQ(cause("Traceback (most recent call last):\n"
                  "  File \"/srv/asr/main.py\", line 3, in <module>\n"
                  "    import soundfile as sf\n"
                  "ModuleNotFoundError: No module named 'soundfile'"),
            "the Python package soundfile is not installed");
  EXPECT_EQ(
      cause("ImportError: cannot import name 'GenerationMixin' from 'transformers' (/v/transformers/__init__.py)"),
      "its Python packages do not fit each other: transformers has no GenerationMixin");
  EXPECT_EQ(cause("ImportError: libcudnn.so.9: cannot open shared object file: No such file or directory"),
            "the shared library libcudnn.so.9 is missing");
  EXPECT_EQ(cause("ImportError: /v/vllm/_C.abi3.so: undefined symbol: _ZN3c104cuda9SetDeviceEa"),
            "a compiled Python package does not fit the others (no symbol _ZN3c104cuda9SetDeviceEa)");
  EXPECT_EQ(cause("/usr/bin/python3: No module named uvicorn"), "the Python package uvicorn is not installed");
  EXPECT_EQ(cause("ERROR:    Traceback (most recent call last):\n"
                  "ValueError: the lexicon is empty\n"
                  "ERROR:    Application startup failed. Exiting."),
            "ValueError: the lexicon is empty")
      << "the line that points back is not the cause";
}

// ---- what a line proves while the process still runs ----

std::optional<FailureCause> conclusive(const Service& service, std::string text) {
  LogLine line;
  line.text = std::move(text);
  return engine_for(service.engine).conclusive(service, line);
}

TEST(FailureConclusive, APermanentCauseEndsTheStartAtOnce) {
  const auto chat = vllm_service();
  const auto cause = conclusive(
      chat,
      "(EngineCore_DP0 pid=9) ERROR 02-09 21:03:09 [core.py:1] ValueError: To serve at least one request with the "
      "model's max seq len (131072), (24.00 GiB KV cache is needed, which is larger than the available KV cache memory "
      "(2.25 GiB). Based on the available memory, the estimated maximum model length is 12288.");
  ASSERT_TRUE(cause);
  EXPECT_EQ(cause->remedy, "Lower max_model_len to 12288, or raise gpu_memory_utilization.");
  EXPECT_TRUE(conclusive(llama_service(), "0.1 E llama_model_load: error loading model: invalid magic"));
}

TEST(FailureConclusive, WhatProgramsSurviveIsLeftToTheirEnd) {
  const auto chat = vllm_service();
  EXPECT_FALSE(conclusive(chat, "ERROR 02-09 21:03:09 [x.py:1] ModuleNotFoundError: No module named 'flash_attn'"));
  EXPECT_FALSE(conclusive(chat, "WARNING 02-09 21:03:09 [x.py:1] No available memory for the cache blocks"));
  EXPECT_FALSE(conclusive(chat, "INFO 02-09 21:03:09 [x.py:1] Loading weights took 3.1 seconds"));
  EXPECT_FALSE(conclusive(chat, "vllm.flux.FluxError: nobody knows this one"));
  // Tried again smaller, without pipeline parallelism.
  EXPECT_FALSE(conclusive(llama_service(),
                          "0.1 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 812.00 MiB on device 0: "
                          "cudaMalloc failed: out of memory"));
}

TEST(FailureConclusive, ARoutersChildrenFailByThemselves) {
  const std::string line = "0.1 E llama_model_load: error loading model: invalid magic";
  EXPECT_TRUE(conclusive(router_service("a"), line));
  EXPECT_FALSE(conclusive(router_service("a"), "[55433] " + line));
}

TEST(FailureConclusive, ACommandIsTakenAtItsWordWhenItsProgramIsKnown) {
  Service service;
  service.id = "x";
  service.engine = EngineKind::command;
  const std::string line = "0.1 E llama_model_load: error loading model: invalid magic";
  service.options = CommandOptions{{"/usr/local/bin/llama-swap", "--config", "x.yaml"}, {}, {}};
  EXPECT_FALSE(conclusive(service, line)) << "a proxy lives on when one behind it fails";
  service.options = CommandOptions{{"/opt/llama/llama-server", "-m", "x.gguf"}, {}, {}};
  EXPECT_TRUE(conclusive(service, line));
  service.options = CommandOptions{{"python3", "-m", "vllm.entrypoints.openai.api_server"}, {}, {}};
  EXPECT_TRUE(conclusive(service, "ValueError: No available memory for the cache blocks."));
  EXPECT_FALSE(conclusive(service, line));
}

/// The text that a pattern is for, with something in its holes.
std::string example_of(std::string_view pattern) {
  std::string text(pattern);
  const std::pair<std::string, std::string> holes[] = {{"<n>", "12"}, {"<w>", "word"}, {"<t>", "text"}, {"*", " - "}};
  for (const auto& [hole, filling] : holes)
    for (auto at = text.find(hole); at != std::string::npos; at = text.find(hole, at + filling.size()))
      text.replace(at, hole.size(), filling);
  return text;
}

/// A special row below a general one would never be read.
TEST(FailureCatalogue, NoRowHidesBehindAnother) {
  for (const auto table : {vllm_failures(), llama_failures(), python_failures(), machine_failures()}) {
    for (const auto& signature : table) {
      const auto line = example_of(signature.pattern);
      const auto first = std::find_if(table.begin(), table.end(),
                                      [&](const auto& row) { return match_pattern(row.pattern, line).has_value(); });
      ASSERT_NE(first, table.end()) << line;
      EXPECT_EQ(first->pattern, signature.pattern) << line;
    }
  }
}

/// A remedy that speaks of {2} where the pattern captures one hole would show a question mark to people.
TEST(FailureCatalogue, EveryPlaceholderHasItsHole) {
  for (const auto kind : {EngineKind::vllm, EngineKind::llamacpp, EngineKind::fastapi, EngineKind::command}) {
    for (const auto* signature : signatures_of(kind)) {
      const auto holes = std::count(signature->pattern.begin(), signature->pattern.end(), '<');
      for (const auto text : {signature->cause, signature->remedy})
        for (std::size_t at = text.find('{'); at != std::string_view::npos; at = text.find('{', at + 1))
          EXPECT_LE(text[at + 1] - '0', holes) << signature->pattern;
      EXPECT_LE(static_cast<std::ptrdiff_t>(signature->subject_hole), holes) << signature->pattern;
      EXPECT_FALSE(signature->cause.empty());
      EXPECT_FALSE(signature->remedy.empty()) << signature->pattern;
      EXPECT_NE(signature->kind, Class::unknown);
    }
  }
}

}  // namespace
}  // namespace gpumod
