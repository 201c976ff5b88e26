"""One question to four SDKs, whole and streamed, asked of a provider on this machine; nothing is charged.

pip install openai anthropic google-genai boto3
python examples/every_provider/app.py
spanledger report --by provider,model,operation
"""

import spanledger
from spanledger import attribution
from spanledger.testing import Loopback

spanledger.configure()

import anthropic  # noqa: E402  # before or after `configure`: both are watched
import boto3  # noqa: E402
import openai  # noqa: E402
from google import genai  # noqa: E402

QUESTION = "What is a ledger?"
MESSAGES = [{"role": "user", "content": QUESTION}]


def ask(root):
    with openai.OpenAI(base_url=f"{root}/v1", api_key="unused") as client:
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        client.audio.speech.create(model="tts-1", voice="alloy", input=QUESTION)
    with anthropic.Anthropic(base_url=root, api_key="unused") as client:
        client.messages.create(model="claude-sonnet-4-5", max_tokens=100, messages=MESSAGES)
        with client.messages.stream(model="claude-sonnet-4-5", max_tokens=100, messages=MESSAGES) as stream:
            stream.get_final_message()
    with genai.Client(api_key="unused", http_options={"base_url": root}) as client:
        client.models.generate_content(model="gemini-2.5-flash", contents=QUESTION)
        for _ in client.models.generate_content_stream(model="gemini-2.5-flash", contents=QUESTION):
            pass
    keys = {"aws_access_key_id": "unused", "aws_secret_access_key": "unused", "region_name": "us-east-1"}
    bedrock = boto3.client("bedrock-runtime", endpoint_url=root, **keys)
    question = [{"role": "user", "content": [{"text": QUESTION}]}]
    bedrock.converse(modelId="us.amazon.nova-lite-v1:0", messages=question)
    for _ in bedrock.converse_stream(modelId="us.amazon.nova-lite-v1:0", messages=question)["stream"]:
        pass


with Loopback() as provider, attribution(feature="tour", user_id="ada"):
    ask(provider.root)
    print(f"{len(provider.truth)} answers.")
