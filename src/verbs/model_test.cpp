// model inspect, and llama-fit-params beside it.
#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/handlers.h"
#include "verbs/model_fit_params.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

namespace json = boost::json;
namespace fs = std::filesystem;
using testing::AllOf;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

TEST(FitParams, ReadsItsLinesAndNoOthers) {
  const auto lines = parse_fit_params(
      "ggml_cuda_init: found 1 CUDA devices:\n"
      "printing estimated memory in MiB to stdout (device, model, context, compute) ...\n"
      "CUDA0 4561 1024 301 \n"
      "CUDA1 1 2 many\n"
      "CUDA1 -1 2 3\n"
      "CUDA1 1 2 99999999999999\n"
      "Host 315 0 18 \n");
  ASSERT_EQ(lines.size(), 2U);
  EXPECT_EQ(lines[0].device, "CUDA0");
  EXPECT_EQ(lines[0].need.weights, Bytes::mib(4561));
  EXPECT_EQ(lines[0].need.kv, Bytes::mib(1024));
  EXPECT_EQ(lines[0].need.compute, Bytes::mib(301));
  EXPECT_EQ(lines[1].device, "Host");
}

TEST(FitParams, IsAskedWithTheSameFlags) {
  ModelFacts facts;
  facts.layers.resize(2);
  LlamaFlags flags;
  flags.context = 8192;
  flags.parallel = 2;
  flags.n_cpu_moe = 1;
  flags.cache_k = "q8_0";
  flags.overrides = {{"a", "CPU"}, {"b", "CUDA0"}};
  EXPECT_THAT(fit_params_command("/bin/x", "/m.gguf", facts, flags),
              ElementsAre("/bin/x", "--fit-print", "on", "-m", "/m.gguf", "-c", "8192", "-ngl", "3", "-ctk", "q8_0",
                          "-ctv", "f16", "-ub", "512", "-np", "2", "--n-cpu-moe", "1", "-ot", "a=CPU,b=CUDA0"));
}

TEST(FitParams, CountsOnlyWhatItSaysOfGpus) {
  VramEstimate estimate;
  estimate.gpus = {{Bytes::mib(10), Bytes::mib(20), Bytes::mib(30), Bytes::mib(400)}};
  ModelFacts facts;
  const LlamaFlags flags;
  EXPECT_FALSE(with_fit_params(estimate, parse_fit_params("Host 1 2 3\n"), facts, flags));
  const auto counted = with_fit_params(estimate, parse_fit_params("CUDA0 1 2 3\nHost 7 8 9\n"), facts, flags);
  ASSERT_TRUE(counted);
  EXPECT_EQ(counted->sum().total(), Bytes::mib(1 + 2 + 3 + 400));
  facts.sliding_window = 512;
  const auto shared = with_fit_params(estimate, parse_fit_params("CUDA0 1 2 3\nCUDA1 1 2 3\n"), facts, flags);
  EXPECT_EQ(shared->sum().kv, Bytes::mib(20)) << "four slots share a cache: it cannot be asked for that";
}

class ModelInspect : public testing::Test {
 protected:
  ModelInspect() : path_("PATH", (tree_ / "bin").string()), nvml_("GPUMOD_NVML_LIBRARY", "/nonexistent/nvml.so") {}

  Result<json::value> run(json::object request) {
    Loop loop;
    ProgressSink sink = [this](const json::object& event) { notices_.push_back(json::serialize(event)); };
    Context context(loop, tree_.paths(), sink);
    return loop.run_until_done(model_inspect(context, std::move(request)));
  }
  json::object answer(json::object request) {
    const auto value = run(std::move(request));
    EXPECT_TRUE(value) << value.error().message;
    return value ? value->as_object() : json::object();
  }
  std::string chat() {
    return tree_
        .write("m/chat.gguf", tiny_model("llama", 4096)
                                  .number("llama.block_count", 2)
                                  .number("llama.embedding_length", 64)
                                  .number("llama.attention.head_count", 4)
                                  .number("llama.attention.head_count_kv", 2)
                                  .tensor("blk.1.attn_q.weight", {64, 64}, "q8_0")
                                  .bytes())
        .string();
  }

  TestTree tree_;
  ScopedVariable path_, nvml_;
  std::vector<std::string> notices_;
};

std::string all_assumptions(const json::object& answer) {
  return json::serialize(answer.at("vram").at("assumptions"));
}

TEST_F(ModelInspect, SaysWhatTheFileSays) {
  const auto shown = answer({{"path", chat()}});
  EXPECT_EQ(shown.at("architecture"), "llama");
  EXPECT_EQ(shown.at("layers"), 2);
  EXPECT_EQ(shown.at("context_length"), 4096);
  EXPECT_EQ(shown.at("parameters"), 8 * 4 + 64 * 64);
  EXPECT_EQ(shown.at("tensors"), 2);
  EXPECT_EQ(shown.at("attention").at("kv_heads"), 2);
  EXPECT_EQ(shown.at("quantization").at("types").as_array().size(), 2U);
  EXPECT_TRUE(shown.at("experts").is_null());
  EXPECT_EQ(shown.at("vram").at("source"), "arithmetic");
  EXPECT_EQ(shown.at("vram").at("kv"), 2 * 4096 * (32 + 32) * 2);
}

TEST_F(ModelInspect, SaysWhenThereIsNoModelInTheFile) {
  const auto vocabulary =
      GgufWriter().text("general.architecture", "llama").texts("tokenizer.ggml.tokens", {"a", "b"}).bytes();
  auto shown = answer({{"path", tree_.write("m/vocab.gguf", vocabulary).string()}});
  EXPECT_TRUE(shown.at("vram").is_null());
  EXPECT_THAT(json::serialize(shown.at("notes")), HasSubstr("holds a vocabulary and no weights"));
  shown = answer(
      {{"path", tree_.write("m/bare.gguf", GgufWriter().text("general.architecture", "llama").bytes()).string()}});
  EXPECT_TRUE(shown.at("vram").is_null());
  EXPECT_THAT(json::serialize(shown.at("notes")), HasSubstr("holds no weights"));
  EXPECT_EQ(answer({{"path", chat()}}).at("notes"), json::array());
}

TEST_F(ModelInspect, ListsTensorsWhenAsked) {
  const auto tensors = answer({{"path", chat()}, {"tensors", true}}).at("tensors").as_array();
  ASSERT_EQ(tensors.size(), 2U);
  EXPECT_EQ(tensors[1].at("name"), "blk.1.attn_q.weight");
  EXPECT_EQ(tensors[1].at("type"), "q8_0");
  EXPECT_EQ(tensors[1].at("bytes"), 64 * 2 * 34);
}

TEST_F(ModelInspect, TakesTheFlagsOfTheServer) {
  const auto shown = answer(
      {{"path", chat()}, {"context", 1024}, {"gpu-layers", 2}, {"parallel", 1}, {"cache-type", json::array{"q8_0"}}});
  EXPECT_EQ(shown.at("vram").at("kv"), 1024 * (34 + 34)) << "one layer, the other stays";
  EXPECT_EQ(shown.at("vram").at("host").at("kv"), 1024 * (34 + 34));
  EXPECT_THAT(all_assumptions(shown), HasSubstr("2 of 3 layers"));
  const auto refusal = [&](json::object request) { return run(std::move(request)).error(); };
  EXPECT_EQ(refusal({{"path", chat()}, {"context", -1}}).code, ErrorCode::usage);
  EXPECT_THAT(refusal({{"path", chat()}, {"context", -1}}).message, HasSubstr("must be 0 at least"));
  EXPECT_EQ(refusal({{"path", chat()}, {"context", 99999999999}}).message,
            "--context must be 2147483647 at most, and is 99999999999");
  EXPECT_EQ(refusal({{"path", chat()}, {"cache-type", json::array{"q4_K"}}}).code, ErrorCode::usage);
  EXPECT_EQ(refusal({{"path", chat()}, {"cache-type", json::array{"f16", "f16", "f16"}}}).code, ErrorCode::usage);
  EXPECT_THAT(refusal({{"path", chat()}, {"utilization", "0.5"}}).message, HasSubstr("says nothing about GGUF"));
  EXPECT_EQ(refusal({{"path", (tree_ / "nowhere").string()}}).code, ErrorCode::not_found);
}

TEST_F(ModelInspect, LetsLlamaFitParamsCountWhereItIs) {
  tree_.program("bin/llama-fit-params",
                "#!/bin/sh\necho \"$@\" > \"$0.asked\"\necho 'CUDA0 100 200 300'\necho 'Host 1 2 3'\n");
  const auto shown = answer({{"path", chat()}, {"context", 512}});
  EXPECT_EQ(shown.at("vram").at("source"), "llama-fit-params");
  EXPECT_EQ(shown.at("vram").at("kv"), 200LL << 20);
  EXPECT_EQ(shown.at("vram").at("arithmetic").at("kv"), 2 * 512 * (32 + 32) * 2);
  EXPECT_THAT(tree_.read("bin/llama-fit-params.asked"), AllOf(HasSubstr("-c 512"), HasSubstr("-m " + chat())));
  EXPECT_THAT(notices_, IsEmpty());

  tree_.program("bin/llama-fit-params", "#!/bin/sh\necho 'CUDA0 1 2 3'\nexit 1\n");
  EXPECT_EQ(answer({{"path", chat()}}).at("vram").at("source"), "arithmetic");
  EXPECT_THAT(notices_, Contains(HasSubstr("did not answer")));
}

TEST_F(ModelInspect, OfAHuggingFaceFolderIsVllmsClaim) {
  tree_.write("hf/config.json", R"({"model_type": "qwen3", "num_hidden_layers": 2, "hidden_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 1024})");
  const std::string header = R"({"a": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}})";
  tree_.write("hf/model.safetensors", GgufWriter::little_endian(header.size(), 8) + header + std::string(16, '\0'));
  const auto path = (tree_ / "hf").string();
  const auto shown = answer({{"path", path}, {"gpu-memory", 24564}, {"utilization", "0.5"}});
  EXPECT_EQ(shown.at("model").at("format"), "safetensors");
  EXPECT_EQ(shown.at("vram").at("claim"), 12282LL << 20);
  EXPECT_EQ(shown.at("vram").at("fits"), true);
  EXPECT_EQ(shown.at("vram").at("kv"), 1024 * 2 * 2 * 2 * 16 * 2);
  EXPECT_TRUE(answer({{"path", path}}).at("vram").at("claim").is_null()) << "no GPU to ask";
  EXPECT_THAT(run({{"path", path}, {"gpu-layers", 3}}).error().message, HasSubstr("safetensors"));
  EXPECT_EQ(run({{"path", path}, {"utilization", "half"}}).error().code, ErrorCode::usage);
  EXPECT_EQ(run({{"path", path}, {"utilization", "7"}}).error().code, ErrorCode::usage);
}

}  // namespace
}  // namespace gpumod
