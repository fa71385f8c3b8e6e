// init as a whole, on a machine made by the test: what is found, what is written, and what never is.
#include <boost/json.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "verbs/propose.h"
#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using testing::HasSubstr;

class InitTest : public testing::Test {
 protected:
  Places places() const {
    Places places;
    places.home = tree_ / "home";
    places.path = (tree_ / "usr/bin").string();
    places.roots = {{tree_ / "home/models"}};
    places.program_folders = {tree_ / "home/llama.cpp/build/bin"};
    places.environments = {tree_ / "home/vllm/.venv"};
    places.hub = tree_ / "home/.cache/huggingface/hub";
    places.own_units = tree_ / "home/.config/systemd/user";
    places.all_units = {places.own_units};
    return places;
  }
  json::value run(bool apply, Places where) {
    Loop loop;
    Context context(loop, tree_.paths(), {});
    auto answer = loop.run_until_done(initialise(context, std::move(where), apply));
    if (answer) return *answer;
    ADD_FAILURE() << answer.error().message;
    return json::object{};
  }
  json::value run(bool apply) { return run(apply, places()); }
  static std::string all_advice(const json::value& answer) { return json::serialize(answer.at("advice")); }
  Catalog catalog() const {
    auto loaded = load_catalog(tree_.paths(), [](const std::string&) { return std::nullopt; });
    return loaded ? std::move(*loaded) : Catalog();
  }

  TestTree tree_;
  ScopedVariable manager_{"GPUMOD_UNIT_MANAGER", "local"};
  ScopedVariable nvml_{"GPUMOD_NVML_LIBRARY", "/nonexistent/libnvidia-ml.so"};
};

constexpr auto llama_server = "#!/bin/sh\necho 'version: 4711 (abc)' >&2\n";

TEST_F(InitTest, FromAnEmptyHomeToACatalogueWithoutProblems) {
  tree_.program("home/llama.cpp/build/bin/llama-server", llama_server);
  tree_.write("home/models/Chat-A.gguf", chat_model());
  tree_.write("home/models/sub/chat-b.gguf", chat_model(512));
  tree_.write("home/models/embed.gguf", embedding_model());

  const auto shown = run(false);
  EXPECT_EQ(shown.at("found").at("models").as_array().size(), 3U);
  EXPECT_EQ(shown.at("found").at("engines").as_array().at(0).at("version").as_string(), "4711 (abc)");
  EXPECT_EQ(shown.at("found").at("unit_manager").as_string(), "local");
  EXPECT_TRUE(shown.at("found").at("gpus").is_null());
  EXPECT_EQ(shown.at("written").as_array().size(), 0U);
  EXPECT_FALSE(fs::exists(tree_.paths().config)) << "nothing is written without consent";

  const auto done = run(true);
  EXPECT_EQ(done.at("written").as_array().size(), done.at("files").as_array().size());
  const auto made = catalog();
  for (const auto& problem : made.problems)
    ADD_FAILURE() << to_string(problem);
  EXPECT_EQ(made.services.size(), 3U);
  EXPECT_EQ(made.modes.size(), 3U);  // blank and the two chat models
  EXPECT_EQ(made.settings.unit_manager, UnitManagerKind::local);
  EXPECT_EQ(made.settings.engines.at(EngineKind::llamacpp).binary, tree_ / "home/llama.cpp/build/bin/llama-server");
  EXPECT_TRUE(made.services.at("embed").llama()->embeddings);
  EXPECT_THAT(all_advice(done), HasSubstr("gpumod mode switch chat-a"));
}

TEST_F(InitTest, FilesAreForTheirOwnerOnly) {
  tree_.write("home/models/a.gguf", chat_model());
  const auto done = run(true);
  ASSERT_FALSE(done.at("written").as_array().empty());
  for (const auto& path : done.at("written").as_array()) {
    struct stat info {};
    ASSERT_EQ(::stat(path.as_string().c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777, 0600U) << path;
  }
  struct stat folder {};
  ASSERT_EQ(::stat((tree_.paths().config / "services").c_str(), &folder), 0);
  EXPECT_EQ(folder.st_mode & 0777, 0700U);
}

TEST_F(InitTest, NothingThatIsThereIsChanged) {
  tree_.write("home/models/a.gguf", chat_model());
  tree_.write("home/.config/gpumod/gpumod.yaml", "# mine\nvram_margin: 1 GiB\n");
  fs::create_directories(tree_.paths().config / "modes");
  fs::create_symlink("/nowhere", tree_.paths().config / "modes/blank.yaml");  // even a broken link is people's
  const auto done = run(true);
  EXPECT_EQ(tree_.read("home/.config/gpumod/gpumod.yaml"), "# mine\nvram_margin: 1 GiB\n");
  EXPECT_TRUE(fs::is_symlink(tree_.paths().config / "modes/blank.yaml"));
  EXPECT_THAT(all_advice(done), HasSubstr("gpumod.yaml is there already"));
  const auto before = tree_.read("home/.config/gpumod/services/a.yaml");
  const auto again = run(true);
  EXPECT_TRUE(again.at("written").as_array().empty()) << again.at("written");
  EXPECT_EQ(tree_.read("home/.config/gpumod/services/a.yaml"), before);
}

TEST_F(InitTest, PartsOfASplitModelAreOneModel) {
  std::int64_t size = 0;
  for (const unsigned number : {1u, 2u, 3u}) {
    auto part = number == 1 ? tiny_model("qwen3", 40960) : GgufWriter().tensor(fmt::format("blk.{}.x", number), {8});
    const auto bytes =
        part.number("split.no", number - 1, GgufType::u16).number("split.count", 3, GgufType::u16).bytes();
    tree_.write(fmt::format("home/models/big-{:05}-of-00003.gguf", number), bytes);
    size += static_cast<std::int64_t>(bytes.size());
  }
  tree_.write("home/models/torn-00001-of-00002.gguf", chat_model());
  tree_.write("home/models/mmproj-big.gguf", chat_model());
  tree_.write("home/models/broken.gguf", "<html>");
  tree_.write("home/models/halfway.gguf", chat_model().substr(0, chat_model().size() - 1));
  const auto shown = run(false);
  const auto& models = shown.at("found").at("models").as_array();
  ASSERT_EQ(models.size(), 1U) << shown.at("found");
  EXPECT_THAT(std::string(models[0].at("path").as_string()), HasSubstr("big-00001-of-00003.gguf"));
  EXPECT_EQ(models[0].at("bytes").as_int64(), size);
  EXPECT_THAT(all_advice(shown), HasSubstr("torn"));
  EXPECT_THAT(all_advice(shown), HasSubstr("this is no GGUF file"));
  EXPECT_THAT(all_advice(shown), HasSubstr("it is cut short"));
  run(true);
  EXPECT_TRUE(catalog().services.contains("big"));
}

TEST_F(InitTest, FindsVllmItsModelsAndPeoplesUnits) {
  tree_.program("home/vllm/.venv/bin/vllm", "#!/bin/sh\ntouch \"$0.was-run\"\n");
  tree_.write("home/vllm/.venv/lib/python3.11/site-packages/vllm-0.13.0.dist-info/METADATA", "");
  const fs::path snapshot = "home/.cache/huggingface/hub/models--Qwen--Qwen3-8B/snapshots/abc";
  tree_.write(snapshot / "config.json", R"({"architectures": ["Qwen3ForCausalLM"], "max_position_embeddings": 40960})");
  tree_.write(snapshot / "model.safetensors", "");
  tree_.write("home/.cache/huggingface/hub/models--x--half/snapshots/abc/config.json",
              R"({"architectures": ["XForCausalLM"]})");
  tree_.write("home/.config/systemd/user/glm-code.service",
              "[Service]\nExecStart=%h/llama-server -m %h/glm.gguf --port 9001\n");
  tree_.write("home/.config/systemd/user/syncthing.service", "[Service]\nExecStart=/usr/bin/syncthing\n");
  tree_.write("home/.config/systemd/user/gpumod-x.service", "[Service]\nExecStart=/usr/bin/vllm serve x\n");
  const auto done = run(true);
  const auto& found = done.at("found");
  EXPECT_EQ(found.at("engines").as_array().at(0).at("version").as_string(), "0.13.0");
  EXPECT_FALSE(fs::exists(tree_ / "home/vllm/.venv/bin/vllm.was-run"));
  ASSERT_EQ(found.at("hub").as_array().size(), 1U);
  EXPECT_EQ(found.at("hub").as_array()[0].at("id").as_string(), "Qwen/Qwen3-8B");
  ASSERT_EQ(found.at("units").as_array().size(), 1U);
  const auto made = catalog();
  for (const auto& problem : made.problems)
    ADD_FAILURE() << to_string(problem);
  EXPECT_EQ(made.services.at("glm-code").unit, "glm-code.service");
  EXPECT_EQ(made.services.at("glm-code").model.path, tree_ / "home/glm.gguf");
  EXPECT_EQ(made.services.at("qwen3-8b").engine, EngineKind::vllm);
}

TEST_F(InitTest, AServerThatDoesNotRunGivesWayToOneThatDoes) {
  tree_.program("usr/bin/llama-server",
                "#!/bin/sh\necho 'error while loading shared libraries: libx.so' >&2\nexit 127\n");
  tree_.program("home/llama.cpp/build/bin/llama-server", llama_server);
  tree_.write("home/models/a.gguf", chat_model());
  run(true);
  EXPECT_EQ(catalog().settings.engines.at(EngineKind::llamacpp).binary,
            tree_ / "home/llama.cpp/build/bin/llama-server");
  fs::remove(tree_ / "home/llama.cpp/build/bin/llama-server");
  EXPECT_THAT(all_advice(run(false)), HasSubstr("libx.so"));
}

TEST_F(InitTest, ALlamaServerThatTheSettingsNameIsFound) {
  tree_.program("elsewhere/llama-server", llama_server);
  tree_.write("home/.config/gpumod/gpumod.yaml",
              fmt::format("engines:\n  llamacpp:\n    binary: {}\n", (tree_ / "elsewhere/llama-server").string()));
  tree_.write("home/models/a.gguf", chat_model());
  const auto done = run(true);
  EXPECT_EQ(done.at("found").at("engines").as_array().size(), 1U);
  EXPECT_TRUE(catalog().services.at("a").binary.empty()) << "the settings say it already";
}

TEST_F(InitTest, ALlamaServerInAModelFolderIsFound) {
  tree_.program("home/models/llama-b1/llama-server", llama_server);
  tree_.write("home/models/a.gguf", chat_model());
  EXPECT_EQ(run(false).at("found").at("engines").as_array().size(), 1U);
}

TEST_F(InitTest, ToldWhereLlamaServerIsItBelievesOnlyAProgram) {
  auto where = places();
  where.llama_server = tree_ / "nowhere";
  Loop loop;
  Context context(loop, tree_.paths(), {});
  const auto answer = loop.run_until_done(initialise(context, where, true));
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::not_found);
  EXPECT_FALSE(fs::exists(tree_.paths().config));
  tree_.program("opt/llama/build/bin/llama-server", llama_server);
  where.llama_server = tree_ / "opt/llama";
  EXPECT_EQ(run(false, where).at("found").at("engines").as_array().size(), 1U);
}

TEST_F(InitTest, WhereThereIsNothingItSaysWhereItLooked) {
  fs::create_directories(tree_ / "home/models");
  const auto done = run(true);
  EXPECT_THAT(all_advice(done), HasSubstr((tree_ / "home/models").string()));
  EXPECT_TRUE(fs::exists(tree_.paths().config / "services/example.yaml.off"));
  const auto made = catalog();
  EXPECT_TRUE(made.problems.empty());
  EXPECT_TRUE(made.services.empty());
}

TEST(UsualPlaces, WhatPeopleNamedComesFirst) {
  const TestTree tree;
  const auto places = usual_places(tree.paths(), tree / "home/desk", {"~/mine", "here"}, "~/l/llama-server");
  ASSERT_GE(places.roots.size(), 2U);
  EXPECT_EQ(places.roots[0].folder, tree / "home/mine");
  EXPECT_EQ(places.roots[1].folder, tree / "home/desk/here");
  EXPECT_TRUE(places.roots[0].told && places.roots[1].told);
  EXPECT_EQ(places.llama_server, tree / "home/l/llama-server");
  EXPECT_THAT(places.roots,
              testing::Each(testing::Truly([&](const auto& root) { return root.told || root.folder == places.hub; })))
      << "who names folders means these";
  const auto usual = usual_places(tree.paths(), tree / "home/desk", {}, "").roots.back();
  EXPECT_EQ(usual.folder, tree / "home/desk");
  EXPECT_EQ(usual.depth, 4);
  EXPECT_EQ(usual_places(tree.paths(), tree / "home", {}, "").roots.back().depth, 0) << "the whole home is too much";
  EXPECT_EQ(usual_places(tree.paths(), "/", {}, "").roots.back().depth, 0);
}

TEST_F(InitTest, AFolderThatPeopleNameMustBeThere) {
  const auto problem_of = [&](const fs::path& folder) {
    Loop loop;
    Context context(loop, tree_.paths(), {});
    auto where = places();
    where.roots.insert(where.roots.begin(), {folder, true});
    auto answer = loop.run_until_done(initialise(context, std::move(where), true));
    return answer ? Error{} : answer.error();
  };
  EXPECT_EQ(problem_of(tree_ / "nowhere").code, ErrorCode::not_found);
  EXPECT_THAT(problem_of(tree_ / "nowhere").message, HasSubstr("there is no folder " + (tree_ / "nowhere").string()));
  EXPECT_EQ(problem_of(tree_.write("file.gguf", "x")).code, ErrorCode::usage);
  EXPECT_FALSE(fs::exists(tree_.paths().config)) << "nothing is written then";
}

TEST_F(InitTest, AConfigurationFolderThatPeopleNameAndThatIsNotThereIsMadeAndSaid) {
  Loop loop;
  auto paths = tree_.paths();
  paths.config_named = true;
  const auto loaded = load_catalog(paths);
  ASSERT_FALSE(loaded) << "for every other verb it is a slip";
  EXPECT_EQ(loaded.error().code, ErrorCode::environment);
  EXPECT_THAT(loaded.error().message, HasSubstr("GPUMOD_CONFIG_DIR is " + paths.config.string()));
  EXPECT_TRUE(load_catalog(tree_.paths())) << "the usual folder need not be there yet";
  Context context(loop, paths, {});
  const auto done = loop.run_until_done(initialise(context, places(), true));
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_THAT(all_advice(*done), HasSubstr("which was not there before"));
  EXPECT_TRUE(load_catalog(paths));
}

}  // namespace
}  // namespace gpumod
