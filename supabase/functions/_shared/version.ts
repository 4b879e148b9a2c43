/** The version `doctor` compares with the SDK's; the same as in pyproject.toml. */
export const VERSION = "0.1.0";
