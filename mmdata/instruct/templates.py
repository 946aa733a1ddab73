"""Instruction templates by task and language; the first to see when an instruction reads oddly.

Placeholders are plain text to replace: {caption}, {reference_caption}, {question}. Those about clips and sound stand in
`clip_templates`. Which template a sample gets is a
hash of its uid, so adding one here reshuffles them: raise CODE_VERSIONS["instructions"] with any change.
"""

# ruff: noqa: RUF001 - Chinese text has Chinese punctuation

from __future__ import annotations

from mmdata.instruct.clip_templates import CLIP_TEMPLATES

TEMPLATES: dict[str, dict[str, tuple[str, ...]]] = {
    "caption": {
        "en": (
            "Describe this image in one sentence.",
            "Write a caption for this picture.",
            "What does this image show?",
            "Give a short description of the picture.",
            "How would you caption this image?",
            "What is in this picture?",
            "Summarise what you see here.",
            "Provide alt text for this image.",
            "Tell me what this picture is of.",
            "Write one line that says what is shown here.",
        ),
        "zh": (
            "用一句话描述这张图片。",
            "请为这张图片写一句说明。",
            "这张图片展示了什么？",
            "简要描述一下图中的内容。",
            "你会给这张图片配上怎样的文字说明？",
            "图片里有什么？",
            "请概括你在图中看到的内容。",
            "请为这张图片撰写替代文本。",
            "请告诉我这张图拍的或画的是什么。",
            "写一行文字，说明图中所示的内容。",
        ),
    },
    "detailed_caption": {
        "en": (
            "Describe this image in detail.",
            "Give a thorough description of the picture.",
            "Explain everything that can be seen in this image.",
            "Write a detailed caption for this picture.",
            "Walk me through this image, leaving nothing important out.",
            "What does this picture show? Be as specific as you can.",
            "Describe the picture so that someone who cannot see it can imagine it.",
            "Give a full account of what is shown here.",
            "Write a careful, complete description of this image.",
        ),
        "zh": (
            "请详细描述这张图片。",
            "对这张图片作一个全面的描述。",
            "请说明图中能看到的所有内容。",
            "为这张图片写一段详细的说明文字。",
            "带我仔细看看这张图，不要漏掉重要的内容。",
            "这张图片展示了什么？请尽量具体。",
            "请描述这张图片，让看不到它的人也能想象出来。",
            "请完整地讲述图中所展示的内容。",
            "请仔细而完整地描述这幅图像。",
        ),
    },
    "match": {
        "en": (
            "Does this caption match the image? “{caption}” Answer yes or no.",
            "Is “{caption}” a correct description of this picture? Answer yes or no.",
            "Caption: “{caption}”\nDoes it belong to this image? Yes or no?",
            "Someone described this picture as “{caption}”. Is that right? Answer with yes or no.",
            "Decide whether the text fits the image. Text: “{caption}” Reply yes or no.",
            "Would “{caption}” be a suitable caption here? Answer yes or no.",
            "Check the caption against the image: “{caption}” Is it accurate? Yes or no?",
            "Do the picture and the following text go together? “{caption}” Say yes or no.",
            "True to the image or not: “{caption}”? Answer yes or no.",
        ),
        "zh": (
            "这句说明与图片相符吗？“{caption}”请回答是或否。",
            "“{caption}”是对这张图片的正确描述吗？请回答是或否。",
            "说明文字：“{caption}”\n它属于这张图片吗？是还是否？",
            "有人把这张图描述为“{caption}”，这样说对吗？请用是或否回答。",
            "请判断文字与图片是否匹配。文字：“{caption}”只需回答是或否。",
            "“{caption}”适合作为这张图片的说明吗？请回答是或否。",
            "请对照图片检查这句说明：“{caption}”它准确吗？是或否？",
            "图片和下面这段文字是一对吗？“{caption}”请回答是或否。",
            "“{caption}”——这句话是否符合图中内容？请回答是或否。",
        ),
    },
    "reference_image": {
        "en": (
            "The second image is a reference that resembles the first. Describe the first image.",
            "Use the second picture only for comparison. What does the first picture show?",
            "Here are two similar images. Write a caption for the first one.",
            "The second image is captioned “{reference_caption}”. Write a caption of the same kind for the first.",
            "Reference, the second image: “{reference_caption}”. Now describe the similar first image.",
            "These pictures look alike. Say what the first one shows, as distinct from the second.",
            "Given that the second image shows “{reference_caption}”, what does the first one show?",
            "Look at both images. They are related but not the same. Caption the first.",
            "With the second picture as an example (“{reference_caption}”), caption the first picture.",
        ),
        "zh": (
            "第二张图片是与第一张相似的参考图。请描述第一张图片。",
            "第二张图仅供对比。第一张图展示了什么？",
            "这里有两张相似的图片。请为第一张写一句说明。",
            "第二张图片的说明是“{reference_caption}”。请为第一张写一句同类的说明。",
            "参考图（第二张）：“{reference_caption}”。现在请描述与之相似的第一张图。",
            "这两张图片看起来很像。请说出第一张展示了什么，并与第二张区分开。",
            "已知第二张图展示的是“{reference_caption}”，那么第一张展示的是什么？",
            "请看这两张图，它们相关但并不相同。请为第一张写说明。",
            "以第二张图为例（“{reference_caption}”），请为第一张图写说明。",
        ),
    },
    "text_qa": {
        "en": (
            "{question}",
            "Answer the following question.\n{question}",
            "Question: {question}",
            "Please answer: {question}",
            "I have a question. {question}",
            "{question}\nGive a direct answer.",
            "Can you help me with this? {question}",
            "Read the question and answer it.\n\n{question}",
        ),
        "zh": (
            "{question}",
            "请回答下面的问题。\n{question}",
            "问题：{question}",
            "请回答：{question}",
            "我有一个问题：{question}",
            "{question}\n请直接给出答案。",
            "你能帮我解答这个问题吗？{question}",
            "请阅读问题并作答。\n\n{question}",
        ),
    },
    "text_to_image": {
        "en": (
            "Generate an image of the following: {caption}",
            "Create a picture that fits this caption: “{caption}”",
            "Draw this: {caption}",
            "Make an image that shows “{caption}”.",
            "Produce a picture for the description below.\n{caption}",
            "I need an image for the text “{caption}”.",
            "Turn this caption into a picture: {caption}",
            "Show me what this looks like: {caption}",
            "Illustrate the following: {caption}",
        ),
        "zh": (
            "请生成一张图片，内容如下：{caption}",
            "请创作一幅符合这句说明的图片：“{caption}”",
            "请画出：{caption}",
            "制作一张展示“{caption}”的图片。",
            "请根据下面的描述生成图片。\n{caption}",
            "我需要一张与这段文字相配的图片：“{caption}”",
            "请把这句说明变成一张图片：{caption}",
            "让我看看它是什么样子：{caption}",
            "请为以下内容配图：{caption}",
        ),
    },
    **CLIP_TEMPLATES,
}

YES_NO: dict[str, tuple[str, str]] = {"en": ("Yes", "No"), "zh": ("是", "否")}

LANGUAGE_NAMES: dict[str, dict[str, str]] = {
    "en": {
        "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
        "es": "Spanish", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian",
        "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "nl": "Dutch", "pl": "Polish",
        "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
        "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
    },
    "zh": {
        "ar": "阿拉伯语", "cs": "捷克语", "da": "丹麦语", "de": "德语", "el": "希腊语", "en": "英语",
        "es": "西班牙语", "fi": "芬兰语", "fr": "法语", "he": "希伯来语", "hi": "印地语", "hu": "匈牙利语",
        "id": "印尼语", "it": "意大利语", "ja": "日语", "ko": "韩语", "nl": "荷兰语", "pl": "波兰语",
        "pt": "葡萄牙语", "ro": "罗马尼亚语", "ru": "俄语", "sv": "瑞典语", "th": "泰语", "tr": "土耳其语",
        "uk": "乌克兰语", "vi": "越南语", "zh": "中文",
    },
}  # fmt: skip

ANSWER_IN: dict[str, str] = {"en": " Answer in {language}.", "zh": "请用{language}回答。"}
"""Added where the answer is written in another language than the question, so that a model learns to be asked."""


def fill(template: str, **values: str) -> str:
    """Put values into a template in one pass: a caption that holds braces or a placeholder's name stays as it is."""
    text = template
    parts: list[str] = []
    while text:
        found = min(((text.find(f"{{{name}}}"), name) for name in values if f"{{{name}}}" in text), default=None)
        if found is None:
            break
        at, name = found
        parts += [text[:at], values[name]]
        text = text[at + len(name) + 2 :]
    return "".join([*parts, text])
