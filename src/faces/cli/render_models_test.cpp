// Snapshots of the registry of models, from literal answers.
#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "faces/cli/render.h"

namespace gpumod::cli {
namespace {

namespace json = boost::json;
using testing::HasSubstr;
using testing::Not;

constexpr auto list_answer = R"({"models": [
  {"id": "coder", "source": "gguf", "registered": true, "path": "/m/coder.gguf", "hub": null, "architecture": "qwen3moe",
   "parameters": 30532122624, "quantization": "Q4_K_M", "context_length": 40960, "bytes": 18874368000, "files": 1,
   "missing": [], "services": ["code", "chat"], "problem": null},
  {"id": "Org/Far", "source": "huggingface", "registered": false, "path": null, "hub": {"id": "Org/Far", "file": null},
   "architecture": null, "parameters": null, "quantization": null, "context_length": null, "bytes": 0, "files": 0,
   "missing": [], "services": ["embed"], "problem": "it is not in the hub's cache, and a service uses it"},
  {"id": "split", "source": "gguf", "registered": true, "path": "/m/s-00001-of-00005.gguf", "hub": null,
   "architecture": "llama", "parameters": 7000000000, "quantization": "Q8_0", "context_length": 8192, "bytes": 0, "files": 5,
   "missing": ["/m/1 is not there", "/m/2 is not there", "/m/3 is not there", "/m/4 is not there", "/m/5 is not there"],
   "services": [], "problem": null}], "notes": ["the file of service 'x' cannot be read"]})";

TEST(ModelList, ShowsAModelALineAndBelowWhatIsMissing) {
  EXPECT_EQ(render("model list", json::parse(list_answer), {}),
            "MODEL    SOURCE       ARCHITECTURE  PARAMETERS  QUANTIZATION       SIZE  CONTEXT  SERVICES\n"
            "coder    gguf         qwen3moe          30.5 B  Q4_K_M        18000 MiB    40960  code, chat\n"
            "Org/Far  huggingface                                                              embed\n"
            "split    gguf         llama              7.0 B  Q8_0                        8192\n"
            "\n"
            "! Org/Far: it is not in the hub's cache, and a service uses it\n"
            "! split: /m/1 is not there\n"
            "! split: /m/2 is not there\n"
            "! split: /m/3 is not there\n"
            "! split: and 2 more of its files\n"
            "\n"
            "! the file of service 'x' cannot be read\n");
  EXPECT_THAT(render("model list", json::parse(R"({"models": [], "notes": []})"), {}), HasSubstr("No models yet"));
}

TEST(ModelRecord, IsOneLineAndWhatBecomesOfTheFiles) {
  EXPECT_EQ(render("model register", json::parse(R"({"registered": {"model": "coder", "source": "gguf",
      "where": "/m/coder.gguf", "architecture": "qwen3", "parameters": 8000000000, "quantization": "Q4_K_M",
      "context_length": 4096, "bytes": 5242880000}})"),
                   {}),
            "registered coder (/m/coder.gguf): qwen3, 8.0 B, Q4_K_M, 5000 MiB\n");
  EXPECT_EQ(render("model remove", json::parse(R"({"removed": {"model": "coder", "where": "/m/coder.gguf"},
      "notes": ["Only the record is gone: its files stay where they are."]})"),
                   {}),
            "removed coder (/m/coder.gguf)\nOnly the record is gone: its files stay where they are.\n");
}

TEST(ModelInfo, AddsFilesAndServicesToWhatInspectShows) {
  const auto text = render("model info", json::parse(R"({"id": "far", "source": "huggingface", "registered": true,
      "path": null, "hub": {"id": "Org/Far", "file": "q4.gguf", "revision": "c0ffee", "gated": true}, "services": [],
      "missing": [], "model": {"name": "Far", "files": ["q4.gguf"], "bytes": 1048576}, "architecture": "qwen3",
      "parameters": 8000000000, "layers": 2, "vram": null, "notes": ["It is on Hugging Face."], "files": [
        {"path": "q4.gguf", "role": "weights", "bytes": 1048576, "modified": null, "sha256": "0123456789abcdef", "problem": null},
        {"path": "config.json", "role": "configuration", "bytes": 10, "modified": null, "sha256": null, "problem": null}]})"),
                           {});
  EXPECT_THAT(text, HasSubstr("model       far\nsource      huggingface, registered\n"));
  EXPECT_THAT(text, HasSubstr("on the hub  Org/Far, whose terms must be agreed to\nservices    none\n"));
  EXPECT_THAT(text, HasSubstr("Far, qwen3\n"));
  EXPECT_THAT(text, HasSubstr("! It is on Hugging Face.\n"));
  EXPECT_THAT(text, HasSubstr("FILE      SIZE  SHA-256\nq4.gguf  1 MiB  0123456789ab\n"));
  EXPECT_THAT(text, Not(HasSubstr("config.json")));
}

TEST(ModelScan, SaysWhatItLeftOutAndHowToGoOn) {
  auto answer = json::parse(R"({"folder": "/m", "models": [], "registered": [], "notes": [], "left_out": [
      {"path": "/m/a.gguf", "why": "/m/a.gguf: at byte 8: nothing"}, {"path": "/m/b", "why": "it holds nothing"}]})");
  EXPECT_EQ(
      render("model scan", answer, {}),
      "/m holds no model that is read here.\n\nLeft out:\n- /m/a.gguf: at byte 8: nothing\n- /m/b: it holds nothing\n");
  answer.at("models") = json::parse(list_answer).at("models");
  EXPECT_THAT(render("model scan", answer, {}), HasSubstr("  coder.gguf\n"));
  EXPECT_THAT(render("model scan", answer, {}), HasSubstr("--register remembers them"));
  answer.at("registered") = json::array{"coder"};
  EXPECT_THAT(render("model scan", answer, {}), HasSubstr("Registered: coder\n"));
}

}  // namespace
}  // namespace gpumod::cli
