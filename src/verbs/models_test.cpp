// The registry of models: list, info, register, remove, scan.
#include <thread>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "host/web_cache.h"
#include "verbs/handlers.h"
#include "verbs/model_registry.h"
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
using testing::UnorderedElementsAre;

class Models : public testing::Test {
 protected:
  Models()
      : nvml_("GPUMOD_NVML_LIBRARY", "/nonexistent/nvml.so"),
        cache_("HF_HUB_CACHE", (tree_ / "hub").string()),
        offline_("HF_HUB_OFFLINE", "1") {}

  using Handler = Answer (*)(Context&, Request);
  Result<json::value> run(Handler handler, json::object request = {}) {
    Loop loop;
    Context context(loop, tree_.paths(), [](const json::object&) {});
    return loop.run_until_done(handler(context, std::move(request)));
  }
  json::object ok(Handler handler, json::object request = {}) {
    const auto value = run(handler, std::move(request));
    EXPECT_TRUE(value) << value.error().message;
    return value ? value->as_object() : json::object();
  }
  Error refused(Handler handler, json::object request) {
    const auto value = run(handler, std::move(request));
    EXPECT_FALSE(value) << json::serialize(*value);
    return value ? Error() : value.error();
  }
  void service(const std::string& id, const std::string& more) {
    tree_.write("home/.config/gpumod/services/" + id + ".yaml",
                fmt::format("id: {}\nport: {}\nvram: 1000 MiB\n{}", id, 7000 + port_++, more));
  }
  std::vector<std::string> ids(const json::object& answer) {
    std::vector<std::string> found;
    for (const auto& model : answer.at("models").as_array())
      found.emplace_back(model.at("id").as_string());
    return found;
  }
  json::object model(const std::string& id) {
    const auto list = ok(model_list);
    for (const auto& each : list.at("models").as_array())
      if (each.at("id").as_string() == id) return each.as_object();
    ADD_FAILURE() << "no " << id << " in " << json::serialize(list);
    return {};
  }
  static std::vector<std::string> texts(const json::value& list) {
    std::vector<std::string> found;
    for (const auto& each : list.as_array())
      found.emplace_back(each.as_string());
    return found;
  }
  fs::path state() { return tree_.paths().state / "state.db"; }

  TestTree tree_;
  ScopedVariable nvml_, cache_, offline_;
  int port_ = 0;
};

TEST_F(Models, AreNoneAtFirstAndNothingIsMadeByLooking) {
  EXPECT_THAT(ids(ok(model_list)), IsEmpty());
  EXPECT_FALSE(fs::exists(state()));
}

TEST_F(Models, ThatServicesDeclareAreListedOnceForAllThatUseThem) {
  const auto path = tree_.write("m/chat.gguf", chat_model());
  service("one", "engine: llamacpp\nmodel: {path: " + path.string() + "}\n");
  service("two", "engine: llamacpp\nmodel: {path: " + path.string() + "}\n");
  service("three", "engine: vllm\nmodel: Org/Model\n");
  EXPECT_THAT(ids(ok(model_list)), ElementsAre("Org/Model", "chat"));
  const auto chat = model("chat");
  EXPECT_EQ(chat.at("source"), "gguf");
  EXPECT_EQ(chat.at("architecture"), "qwen3");
  EXPECT_EQ(chat.at("context_length"), 40960);
  EXPECT_EQ(chat.at("registered"), false);
  EXPECT_EQ(chat.at("bytes").as_int64(), static_cast<std::int64_t>(fs::file_size(path)));
  EXPECT_THAT(texts(chat.at("services")), ElementsAre("one", "two"));
  EXPECT_THAT(texts(chat.at("missing")), IsEmpty());
  const auto remote = model("Org/Model");
  EXPECT_EQ(remote.at("source"), "huggingface");
  EXPECT_THAT(std::string(remote.at("problem").as_string()), HasSubstr("not in the hub's cache"));
}

TEST_F(Models, OfARouterAreThoseOfItsFolder) {
  tree_.write("m/coder.gguf", chat_model());
  const auto router = "engine: llamacpp\nrouter: r\nport: 7999\nmodels_dir: " + (tree_ / "m").string() + "\n";
  tree_.write("home/.config/gpumod/services/a.yaml", "id: a\nvram: 1 MiB\nmodel: coder\n" + router);
  tree_.write("home/.config/gpumod/services/b.yaml", "id: b\nvram: 1 MiB\nmodel: gone\n" + router);
  EXPECT_EQ(model("coder").at("architecture"), "qwen3");
  EXPECT_THAT(texts(model("gone").at("missing")), ElementsAre(HasSubstr("gone.gguf is not there")));
}

TEST_F(Models, AreRegisteredUnderAnIdAndUnitedWithWhatServicesDeclare) {
  const auto path = tree_.write("m/chat.gguf", chat_model());
  service("one", "engine: llamacpp\nmodel: {path: " + path.string() + "}\n");
  const auto before = tree_.read("home/.config/gpumod/services/one.yaml");
  fs::create_symlink(tree_ / "m", tree_ / "link");
  const auto answer = ok(model_register, {{"model", "my-chat"}, {"path", (tree_ / "link/chat.gguf").string()}});
  EXPECT_EQ(answer.at("registered").at("source"), "gguf");
  EXPECT_EQ(answer.at("registered").at("architecture"), "qwen3");
  EXPECT_THAT(ids(ok(model_list)), ElementsAre("my-chat"));
  EXPECT_THAT(texts(model("my-chat").at("services")), ElementsAre("one"));
  EXPECT_EQ(tree_.read("home/.config/gpumod/services/one.yaml"), before);

  const auto again = refused(model_register, {{"model", "my-chat"}, {"path", path.string()}});
  EXPECT_EQ(again.code, ErrorCode::refused);
  EXPECT_THAT(again.message, HasSubstr("there is a model 'my-chat' already"));

  const auto removed = ok(model_remove, {{"model", "my-chat"}});
  EXPECT_THAT(texts(removed.at("notes")), ElementsAre(HasSubstr("its files stay where they are")));
  EXPECT_TRUE(fs::exists(path));
  EXPECT_THAT(ids(ok(model_list)), ElementsAre("chat")) << "the service still declares it";
  const auto declared = refused(model_remove, {{"model", "chat"}});
  EXPECT_EQ(declared.code, ErrorCode::refused);
  EXPECT_THAT(declared.message, HasSubstr("service 'one' declares it"));
  EXPECT_EQ(refused(model_remove, {{"model", "nothing"}}).code, ErrorCode::not_found);
}

TEST_F(Models, ThatCannotBeReadAreNotRegistered) {
  tree_.write("m/big-00001-of-00002.gguf", chat_model());
  tree_.write("m/page.gguf", "<html>");
  fs::create_directory(tree_ / "empty");
  const auto attempt = [&](const std::string& path) {
    return refused(model_register, {{"model", "x"}, {"path", (tree_ / path).string()}});
  };
  EXPECT_EQ(attempt("m/none.gguf").code, ErrorCode::not_found);
  EXPECT_EQ(attempt("m/page.gguf").code, ErrorCode::configuration);
  attempt("m/big-00001-of-00002.gguf");
  EXPECT_EQ(attempt("empty").code, ErrorCode::not_found);
  EXPECT_EQ(refused(model_register, {{"model", "x"}}).code, ErrorCode::usage);
  EXPECT_EQ(refused(model_register, {{"model", "x"}, {"path", "a"}, {"hf", "b/c"}}).code, ErrorCode::usage);
  EXPECT_EQ(refused(model_register, {{"model", "a/b/c"}, {"path", "a"}}).code, ErrorCode::usage);
  EXPECT_EQ(refused(model_register, {{"model", "x"}, {"hf", "no-organisation"}}).code, ErrorCode::usage);
  EXPECT_FALSE(fs::exists(state()));
}

TEST_F(Models, WhoseFilesWentAreStillKnownByWhatWasKept) {
  const auto path = tree_.write("m/chat.gguf", chat_model());
  ok(model_register, {{"model", "kept"}, {"path", path.string()}});
  fs::remove(path);
  const auto kept = model("kept");
  EXPECT_EQ(kept.at("architecture"), "qwen3");
  EXPECT_EQ(kept.at("bytes"), 0);
  EXPECT_THAT(texts(kept.at("missing")), ElementsAre(HasSubstr("chat.gguf is not there")));
  const auto info = ok(model_info, {{"model", "kept"}});
  EXPECT_EQ(info.at("architecture"), "qwen3");
  EXPECT_TRUE(info.at("vram").is_null());
  EXPECT_THAT(texts(info.at("notes")), ElementsAre(HasSubstr("when it was registered")));
}

TEST_F(Models, AFileThatChangedIsReadAnew) {
  const auto path = tree_.write("m/chat.gguf", chat_model(1024));
  ok(model_register, {{"model", "m"}, {"path", path.string()}});
  EXPECT_EQ(model("m").at("context_length"), 1024);
  tree_.write("m/chat.gguf", tiny_model("qwen3", 2048).text("general.name", "longer").bytes());
  EXPECT_EQ(model("m").at("context_length"), 2048);
  tree_.write("m/chat.gguf", "no longer a model");
  EXPECT_TRUE(model("m").at("problem").is_string());
}

TEST_F(Models, OfWhichOnlyFilesAreKnownAreLocal) {
  tree_.write("whisper/model.bin", "weights");
  ok(model_register, {{"model", "whisper"}, {"path", (tree_ / "whisper").string() + "/"}});
  EXPECT_EQ(model("whisper").at("source"), "local");
  EXPECT_EQ(model("whisper").at("bytes"), 7);
  EXPECT_EQ(std::string(model("whisper").at("path").as_string()), (tree_ / "whisper").string());
  EXPECT_THAT(texts(ok(model_info, {{"model", "whisper"}}).at("notes")), ElementsAre(HasSubstr("only its files")));
}

TEST_F(Models, InfoSaysWhatInspectSaysAndMore) {
  const auto path = tree_.write("m/vision-Q4.gguf", chat_model());
  tree_.write("m/mmproj-vision.gguf", "projector");
  service("see", "engine: llamacpp\nmodel: {path: " + path.string() + "}\n");
  const auto inspected = ok(model_inspect, {{"path", path.string()}, {"context", 512}});
  for (const auto& wanted : {std::string("vision-Q4"), path.string()}) {
    const auto info = ok(model_info, {{"model", wanted}, {"context", 512}});
    for (const auto& [key, value] : inspected)
      EXPECT_EQ(info.at(key), value) << key;
    EXPECT_EQ(info.at("id"), "vision-Q4");
    EXPECT_THAT(texts(info.at("services")), ElementsAre("see"));
    const auto& files = info.at("files").as_array();
    ASSERT_EQ(files.size(), 2U);
    EXPECT_EQ(std::string(files[0].at("path").as_string()), path.string());
    EXPECT_TRUE(files[0].at("modified").is_string());
    EXPECT_EQ(files[1].at("role"), "projector");
  }
  EXPECT_EQ(refused(model_info, {{"model", "visoin-Q4"}}).code, ErrorCode::not_found);
  EXPECT_THAT(refused(model_info, {{"model", "visoin-Q4"}}).hint, HasSubstr("vision-Q4"));
  EXPECT_EQ(refused(model_info, {{"model", (tree_ / "m/mmproj-vision.gguf").string()}}).code, ErrorCode::configuration);
}

TEST_F(Models, InTheHubsCacheHaveTheirChecksumAsTheNameOfTheirBlob) {
  const std::string sum(64, 'b');
  tree_.write("hub/models--Org--M-GGUF/blobs/" + sum, chat_model());
  const auto snapshot = tree_ / "hub/models--Org--M-GGUF/snapshots/1";
  fs::create_directories(snapshot);
  fs::create_symlink("../../blobs/" + sum, snapshot / "m.gguf");
  const auto info = ok(model_info, {{"model", (snapshot / "m.gguf").string()}});
  EXPECT_EQ(std::string(info.at("files").as_array().front().at("sha256").as_string()), sum);
  EXPECT_EQ(info.at("architecture"), "qwen3");
}

TEST_F(Models, AskedForOnTheHubWhileOfflineAreSaidToBeUnknown) {
  const auto error = refused(model_info, {{"model", "Org/Never"}});
  EXPECT_EQ(error.code, ErrorCode::not_found);
  EXPECT_THAT(error.message, HasSubstr("offline"));
}

TEST_F(Models, OnTheHubAreShownByTheirRecordWhenNothingElseIsThere) {
  {
    auto store = Store::open(tree_.paths().state);
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->add_model({"far",
                                  "huggingface",
                                  {},
                                  "Org/M",
                                  "m.gguf",
                                  R"({"architecture":"qwen3","parameters":5,"quantization":"Q4_K_M"})",
                                  wall_now()}));
  }
  const auto info = ok(model_info, {{"model", "far"}});
  EXPECT_EQ(info.at("architecture"), "qwen3");
  EXPECT_EQ(info.at("hub").at("id"), "Org/M");
  EXPECT_THAT(texts(info.at("notes")),
              ElementsAre(AllOf(HasSubstr("offline"), HasSubstr("shown is what was known when it was registered"))));
}

TEST_F(Models, OnTheHubAreFetchedByACommandThatStrangersDoNotWrite) {
  const auto part = [](unsigned number) {
    auto file = number == 0 ? tiny_model("qwen3", 1024) : GgufWriter().tensor("blk.0.more.weight", {8, 4});
    return file.number("split.no", number, GgufType::u16).number("split.count", 2, GgufType::u16).bytes();
  };
  const std::map<std::string, std::string> files{{"$(reboot).GGUF", chat_model()},
                                                 {"in/m-00001-of-00002.gguf", part(0)},
                                                 {"in/m-00002-of-00002.gguf", part(1)},
                                                 {"mmproj-$(reboot).gguf", "x"}};
  WebCache kept(tree_.paths().cache / "hub");
  const std::string hub = "https://huggingface.co/";
  json::array siblings;
  for (const auto& [name, content] : files)
    siblings.push_back({{"rfilename", name}, {"size", content.size()}});
  const json::object listing{{"id", "Org/M"}, {"sha", "c0ffee"}, {"siblings", std::move(siblings)}};
  ASSERT_TRUE(kept.keep(hub + "api/models/Org/M?blobs=true", {"", json::serialize(listing), wall_now()}));
  for (const auto& [name, content] : files) {
    const auto path = name[0] == '$' ? "%24%28reboot%29.GGUF" : name;
    ASSERT_TRUE(kept.keep(hub + "Org/M/resolve/c0ffee/" + path + "#header", {"", content, wall_now()}));
  }
  EXPECT_THAT(texts(ok(model_info, {{"model", "Org/M:reboot"}}).at("notes")),
              Contains(HasSubstr("hf download Org/M '$(reboot).GGUF' 'mmproj-$(reboot).gguf' fetches it")));
  EXPECT_THAT(texts(ok(model_info, {{"model", "Org/M:in/m"}}).at("notes")),
              Contains(HasSubstr("hf download Org/M in/m-00001-of-00002.gguf in/m-00002-of-00002.gguf fetches it")));
}

TEST_F(Models, DoWithoutAProjectorThatIsNotThere) {
  tree_.write("d/v.gguf", chat_model());
  fs::create_symlink("gone", tree_ / "d/mmproj-v.gguf");
  EXPECT_THAT(ids(ok(model_scan, {{"folder", (tree_ / "d").string()}})), ElementsAre("v"));
  ok(model_register, {{"model", "v"}, {"path", (tree_ / "d/v.gguf").string()}});
  const auto info = ok(model_info, {{"model", "v"}});
  EXPECT_FALSE(info.at("vram").is_null());
  EXPECT_THAT(texts(info.at("notes")), Contains(AllOf(HasSubstr("mmproj-v.gguf is a link that leads nowhere"),
                                                      HasSubstr("can be served without it"))));
  EXPECT_THAT(texts(model("v").at("missing")), ElementsAre(HasSubstr("mmproj-v.gguf")));
}

TEST_F(Models, AScanJoinsPartsAndSaysWhatItLeftOut) {
  tree_.write("d/chat.gguf", chat_model());
  tree_.write("d/vision/v-Q4.gguf", chat_model());
  tree_.write("d/vision/mmproj-v.gguf", tiny_model("clip", 1).bytes());
  tree_.write("d/split/s-00001-of-00002.gguf", chat_model());
  tree_.write("d/stray/a.gguf", chat_model());
  tree_.write("d/stray/b.gguf", chat_model());
  tree_.write("d/stray/mmproj-zzz.gguf", "x");
  tree_.write("d/broken.gguf", "GGUF");
  tree_.write("d/lora/adapter.safetensors", "x");
  tree_.write("d/.hidden/h.gguf", chat_model());
  const auto answer = ok(model_scan, {{"folder", (tree_ / "d").string() + "/"}});
  EXPECT_THAT(ids(answer), UnorderedElementsAre("chat", "v-Q4", "a", "b"));
  std::map<std::string, std::string> left;
  for (const auto& each : answer.at("left_out").as_array())
    left[fs::path(std::string(each.at("path").as_string())).filename()] = std::string(each.at("why").as_string());
  ASSERT_EQ(left.size(), 4U) << json::serialize(answer.at("left_out"));
  EXPECT_THAT(left.at("s-00001-of-00002.gguf"), HasSubstr("s-00002-of-00002.gguf is not there"));
  EXPECT_THAT(left.at("mmproj-zzz.gguf"), HasSubstr("its model is not beside it"));
  EXPECT_THAT(left.at("broken.gguf"), HasSubstr("at byte"));
  EXPECT_THAT(left.at("lora"), HasSubstr("no config.json"));
  EXPECT_FALSE(fs::exists(state())) << "looking registers nothing";
}

TEST_F(Models, AScanRegistersWhatIsNewAndKeepsWhatIsKnown) {
  tree_.write("d/one/model.gguf", chat_model());
  tree_.write("d/two/model.gguf", chat_model());
  ok(model_register, {{"model", "mine"}, {"path", (tree_ / "d/two/model.gguf").string()}});
  tree_.write("d/three/model.gguf", chat_model());
  const auto answer = ok(model_scan, {{"folder", (tree_ / "d").string()}, {"register", true}});
  EXPECT_THAT(texts(answer.at("registered")), UnorderedElementsAre("model", "model-2"));
  EXPECT_THAT(ids(ok(model_list)), ElementsAre("mine", "model", "model-2"));
  EXPECT_THAT(texts(ok(model_scan, {{"folder", (tree_ / "d").string()}, {"register", true}}).at("registered")),
              IsEmpty());
}

TEST_F(Models, AScanKnowsWhatWasDownloadedOfAModelOfTheHub) {
  tree_.write("hub/models--Org--M/snapshots/1/m.gguf", chat_model());
  {
    auto store = Store::open(tree_.paths().state);
    ASSERT_TRUE(store);
    ASSERT_TRUE(store->add_model({"far", "huggingface", {}, "Org/M", "m.gguf", "{}", wall_now()}));
  }
  const auto answer = ok(model_scan, {{"folder", (tree_ / "hub").string()}, {"register", true}});
  EXPECT_THAT(ids(answer), ElementsAre("far"));
  EXPECT_THAT(texts(answer.at("registered")), IsEmpty());
}

TEST_F(Models, ScansAtTheSameTimeRegisterEachModelOnce) {
  for (int i = 0; i < 20; ++i)
    tree_.write(fmt::format("d/m{}.gguf", i), chat_model());
  std::vector<std::thread> scans;
  for (int i = 0; i < 4; ++i)
    scans.emplace_back([&] { ok(model_scan, {{"folder", (tree_ / "d").string()}, {"register", true}}); });
  for (auto& scan : scans)
    scan.join();
  EXPECT_EQ(ids(ok(model_list)).size(), 20U);
}

TEST_F(Models, AScanNeedsAFolder) {
  tree_.write("file.gguf", chat_model());
  EXPECT_EQ(refused(model_scan, {{"folder", (tree_ / "none").string()}}).code, ErrorCode::not_found);
  EXPECT_EQ(refused(model_scan, {{"folder", (tree_ / "file.gguf").string()}}).code, ErrorCode::usage);
}

TEST(ModelId, IsMadeOfATitle) {
  EXPECT_EQ(new_model_id("Qwen3-8B Q4 (mine)", {}), "Qwen3-8B-Q4-mine");
  EXPECT_EQ(new_model_id("Org/Model", {}), "Org/Model");
  EXPECT_EQ(new_model_id("a", {"a", "a-2"}), "a-3");
  EXPECT_EQ(new_model_id("\xff\xfe", {}), "model");
  EXPECT_EQ(new_model_id("--..x..--", {}), "x");
  EXPECT_EQ(new_model_id("a/b/c", {}), "a/b-c");
  const std::vector<std::string> odd = {"///", "a/.b", "a-/b", ".hidden", std::string(300, 'z')};
  for (const auto& title : odd)
    EXPECT_TRUE(is_model_id(new_model_id(title, {}))) << title;
}

}  // namespace
}  // namespace gpumod
