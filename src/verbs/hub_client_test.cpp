#include "verbs/hub_client.h"

#include <deque>

#include <boost/json.hpp>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "verbs/tree_testing.h"

namespace gpumod {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

/// The Hub as a function; what it was asked is kept.
struct FakeHub {
  std::function<Result<WebReply>(const WebRequest&)> answer;
  std::vector<WebRequest> asked;

  HubClient::OpenWeb open() {
    return [this]() -> Result<std::unique_ptr<Web>> {
      struct View : Web {
        explicit View(FakeHub& owner) : hub(owner) {}
        Result<WebReply> get(const WebRequest& request) override {
          hub.asked.push_back(request);
          return hub.answer(request);
        }
        FakeHub& hub;
      };
      return std::make_unique<View>(*this);
    };
  }
};

WebReply reply(int status, std::string body = "", std::map<std::string, std::string> headers = {}) {
  return {status, std::move(headers), std::move(body)};
}

const std::string listing = R"({"id":"Org/M","sha":"c0ffee","siblings":[{"rfilename":"config.json","size":2}]})";

class HubClientTest : public testing::Test {
 protected:
  HubClient client(HubSettings settings = {}) { return {std::move(settings), tree_ / "cache", hub_.open()}; }
  static HubSettings offline() {
    HubSettings settings;
    settings.offline = true;
    return settings;
  }
  void answer_with(Result<WebReply> fixed) {
    hub_.answer = [fixed](const WebRequest&) { return fixed; };
  }
  /// A repository of GGUF files, which gives parts of them as the real one does.
  void serve_files(const std::map<std::string, std::string>& files) {
    hub_.answer = [files](const WebRequest& request) -> Result<WebReply> {
      if (request.url.find("/api/models/") != std::string::npos) {
        boost::json::array siblings;
        for (const auto& [name, content] : files)
          siblings.push_back({{"rfilename", name}, {"size", content.size()}});
        return reply(200, boost::json::serialize(boost::json::object{
                              {"id", "Org/M"}, {"sha", "c0ffee"}, {"siblings", std::move(siblings)}}));
      }
      for (const auto& [name, content] : files) {
        if (!request.url.ends_with("/Org/M/resolve/c0ffee/" + name)) continue;
        if (!request.range) return reply(200, content);
        const auto [first, last] = *request.range;
        return reply(206, content.substr(first, last - first + 1),
                     {{"content-range", fmt::format("bytes {}-{}/{}", first, last, content.size())}});
      }
      return reply(404);
    };
  }

  TestTree tree_;
  FakeHub hub_;
};

TEST_F(HubClientTest, AsksWithTheTokenAndKeepsTheAnswer) {
  HubSettings settings;
  settings.token = Secret("hf_x");
  auto asking = client(settings);
  answer_with(reply(200, listing, {{"etag", "\"1\""}}));
  const auto repository = asking.repository("Org/M");
  ASSERT_TRUE(repository) << repository.error().message;
  EXPECT_EQ(repository->revision, "c0ffee");
  EXPECT_EQ(hub_.asked[0].url, "https://huggingface.co/api/models/Org/M?blobs=true");
  EXPECT_EQ(hub_.asked[0].token.reveal(), "hf_x");

  answer_with(reply(304));
  EXPECT_TRUE(client().repository("Org/M"));
  EXPECT_EQ(hub_.asked[1].headers.at("If-None-Match"), "\"1\"");
  EXPECT_TRUE(client(offline()).repository("Org/M"));
  EXPECT_EQ(hub_.asked.size(), 2U) << "offline asks nobody";
}

TEST_F(HubClientTest, WhatWasKeptStandsInWhenTheHubCannotAnswer) {
  answer_with(reply(200, listing));
  ASSERT_TRUE(client().repository("Org/M"));
  for (const auto& trouble : {Result<WebReply>(reply(429, "", {{"retry-after", "17"}})), Result<WebReply>(reply(503)),
                              Result<WebReply>(reply(200, "<html>a portal of some hotel</html>")),
                              Result<WebReply>(fail(ErrorCode::environment, "the network is gone"))}) {
    answer_with(trouble);
    auto asking = client();
    EXPECT_TRUE(asking.repository("Org/M"));
    EXPECT_THAT(asking.notices(), ElementsAre(HasSubstr("shown is what was known on 20")));
    EXPECT_FALSE(client().repository("Org/Unknown")) << "nothing was kept of that one";
  }
  EXPECT_TRUE(client(offline()).repository("Org/M")) << "no trouble was kept in its place";
}

TEST_F(HubClientTest, EachRefusalSaysWhatToDo) {
  HubSettings with_token;
  with_token.token = Secret("hf_secret");
  const auto ask = [&](const HubSettings& settings, const WebReply& fixed) {
    answer_with(fixed);
    const auto repository = client(settings).repository("Org/M");
    EXPECT_FALSE(repository);
    EXPECT_THAT(repository.error().message + repository.error().hint, Not(HasSubstr("hf_secret")));
    return repository.error();
  };
  EXPECT_EQ(ask({}, reply(404)).code, ErrorCode::not_found);
  EXPECT_EQ(ask({}, reply(401)).code, ErrorCode::not_found);
  EXPECT_THAT(ask({}, reply(401)).hint, HasSubstr("set HF_TOKEN"));
  EXPECT_THAT(ask(with_token, reply(401)).message, HasSubstr("does not accept HF_TOKEN"));
  EXPECT_EQ(ask(with_token, reply(401)).code, ErrorCode::environment);
  EXPECT_THAT(ask(with_token, reply(403)).hint, HasSubstr("Agree to its terms at https://huggingface.co/Org/M"));
  EXPECT_THAT(ask({}, reply(429, "", {{"retry-after", "17"}})).message, HasSubstr("it asks to wait 17 s"));
  EXPECT_THAT(ask({}, reply(429, "", {{"retry-after", "\x1b[31m"}})).message, Not(HasSubstr("\x1b")));
  EXPECT_THAT(ask({}, reply(500)).message, HasSubstr("answers 500"));
}

TEST_F(HubClientTest, OfflineSaysWhatWasNeverFetched) {
  const auto repository = client(offline()).repository("Org/M");
  ASSERT_FALSE(repository);
  EXPECT_EQ(repository.error().code, ErrorCode::not_found);
  EXPECT_THAT(repository.error().message, HasSubstr("offline, and model Org/M was never fetched"));
  EXPECT_THAT(hub_.asked, IsEmpty());
}

TEST_F(HubClientTest, ReadsHeadersOfGgufFilesInPartsAndNeverTheWeights) {
  auto weights = tiny_model("qwen3", 4096).tensor("huge", {4096, 4096}).bytes();
  ASSERT_GT(weights.size(), 60U << 20);
  serve_files({{"M-Q4_K_M.gguf", weights}, {"M-Q8_0.gguf", weights}});
  auto asking = client();
  const auto repository = asking.repository("Org/M");
  ASSERT_TRUE(repository) << repository.error().message;
  std::string file = "q4_k";
  const auto facts = asking.facts(*repository, file);
  ASSERT_TRUE(facts) << facts.error().message;
  EXPECT_EQ(file, "M-Q4_K_M.gguf");
  EXPECT_EQ(facts->architecture, "qwen3");
  EXPECT_EQ(facts->file_bytes.count(), static_cast<std::int64_t>(weights.size()));
  std::uint64_t fetched = 0;
  for (const auto& request : hub_.asked)
    if (request.range) fetched += request.range->second - request.range->first + 1;
  EXPECT_EQ(fetched, 1U << 20) << "one block";

  auto later = client(offline());
  EXPECT_EQ(later.facts(*later.repository("Org/M"), file)->architecture, "qwen3") << "the header was kept";
  std::string other = "M-Q8_0.gguf";
  EXPECT_THAT(later.facts(*repository, other).error().message, HasSubstr("the header of Org/M:M-Q8_0.gguf was never"));
}

TEST_F(HubClientTest, AServerThatGivesNoPartsIsNotBelieved) {
  serve_files({{"m.gguf", tiny_model("qwen3", 4096).tensor("huge", {4096, 1024}).bytes()}});
  const auto honest = hub_.answer;
  auto asking = client();
  const auto repository = asking.repository("Org/M");
  ASSERT_TRUE(repository);
  for (const auto& lie : {reply(200, "GGUF"), reply(206, "GGUF"), reply(206, std::string(1 << 20, 'x'))}) {
    answer_with(lie);
    std::string file;
    const auto facts = asking.facts(*repository, file);
    ASSERT_FALSE(facts);
    EXPECT_THAT(facts.error().message, HasSubstr("answers something else"));
  }
  hub_.answer = honest;
  std::string file;
  EXPECT_TRUE(asking.facts(*repository, file)) << "no lie was kept";
}

TEST_F(HubClientTest, SeveralModelsMustBeToldApart) {
  const auto model = chat_model();
  serve_files({{"M-Q4_K_M.gguf", model}, {"M-Q4_K_S.gguf", model}, {"mmproj-F16.gguf", model}});
  auto asking = client();
  const auto repository = asking.repository("Org/M");
  std::string file;
  const auto any = asking.facts(*repository, file);
  ASSERT_FALSE(any);
  EXPECT_EQ(any.error().code, ErrorCode::usage);
  EXPECT_THAT(any.error().hint, AllOf(HasSubstr("M-Q4_K_M.gguf, M-Q4_K_S.gguf"), Not(HasSubstr("mmproj"))));
  file = "Q5";
  EXPECT_EQ(asking.facts(*repository, file).error().code, ErrorCode::not_found);
}

TEST(HubName, IsARepositoryAndPerhapsAFile) {
  EXPECT_EQ(parse_hub_name("Org/M:Q4_K_M")->file, "Q4_K_M");
  EXPECT_EQ(parse_hub_name("Org/M")->id, "Org/M");
  for (const char* wrong : {"", "M", "Org/M:", "/etc/passwd", "./models/m.gguf", "Org/../M", "a/b/c", "Org/M?x"})
    EXPECT_FALSE(parse_hub_name(wrong)) << wrong;
}

TEST(HubSettingsTest, ComeFromTheVariablesThatPeopleHaveAndNeverShowTheToken) {
  const ScopedVariable offline("HF_HUB_OFFLINE", "1"), wait("HF_HUB_ETAG_TIMEOUT", "3");
  const ScopedVariable endpoint("HF_ENDPOINT", "https://hub.example/"), token("HF_TOKEN", "hf_abc");
  const auto settings = hub_settings();
  ASSERT_TRUE(settings);
  EXPECT_EQ(settings->endpoint, "https://hub.example");
  EXPECT_EQ(settings->token.reveal(), "hf_abc");
  EXPECT_TRUE(settings->offline);
  EXPECT_EQ(settings->timeout, 3s);
  {
    const ScopedVariable broken("HF_TOKEN", "hf_abc\r\nX-Evil: 1");
    EXPECT_THAT(hub_settings().error().message, AllOf(HasSubstr("HF_TOKEN"), Not(HasSubstr("hf_abc"))));
  }
  const ScopedVariable odd("HF_ENDPOINT", "https://me:password@hub.example");
  EXPECT_THAT(hub_settings().error().message, AllOf(HasSubstr("HF_ENDPOINT"), Not(HasSubstr("password"))));
}

TEST(HubSettingsTest, ATokenIsNotSentInTheClear) {
  HubSettings settings;
  settings.token = Secret("hf_abc");
  settings.endpoint = "http://hub.example";
  const HubClient far(settings, "/nonexistent");
  EXPECT_TRUE(far.settings().token.reveal().empty());
  EXPECT_THAT(far.notices(), ElementsAre(HasSubstr("HF_TOKEN is not sent to http://hub.example")));
  for (const char* somewhere : {"http://127.evil.com", "http://127.0.0.1.evil.com:80", "http://localhost.evil.com",
                                "http://128.0.0.1", "http://[::2]:80"}) {
    settings.endpoint = somewhere;
    EXPECT_TRUE(HubClient(settings, "/nonexistent").settings().token.reveal().empty()) << somewhere;
  }
  for (const char* here : {"http://127.0.0.1:8080", "http://127.1.2.3", "HTTP://LocalHost", "http://[::1]:80"}) {
    settings.endpoint = here;
    EXPECT_FALSE(HubClient(settings, "/nonexistent").settings().token.reveal().empty()) << here;
  }
}

}  // namespace
}  // namespace gpumod
