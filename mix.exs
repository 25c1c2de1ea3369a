# The compiler of the native library: beside the crate that it builds.
Code.require_file("native/tiebeam_nif/compile.tiebeam_nif.ex", __DIR__)

defmodule Tiebeam.MixProject do
  use Mix.Project

  @version "0.1.0"
  @source "https://github.com/tiebeam/tiebeam"

  def project do
    [
      app: :tiebeam,
      version: @version,
      elixir: "~> 1.14",
      description: "BEAM nodes and Rust nodes in one cluster",
      compilers: [:tiebeam_nif] ++ Mix.compilers(),
      elixirc_paths: elixirc_paths(Mix.env()),
      start_permanent: Mix.env() == :prod,
      # None, not even for development: a dependency would make every task ask for Hex.
      deps: [],
      package: package(),
      source_url: @source,
      docs: docs(),
      # Cover compiles a module anew, which would load its NIF a second time.
      test_coverage: [ignore_modules: [Tiebeam.Native]]
    ]
  end

  def application do
    [extra_applications: applications(Mix.env())]
  end

  # The tests of TLS make certificates and open a socket of their own.
  defp applications(:test), do: [:crypto, :inets, :logger, :public_key, :ssl]

  # Gossip with a secret is encrypted. Kubernetes' API is asked over HTTPS: who uses it has these applications.
  defp applications(_env), do: [:crypto, :logger, inets: :optional, public_key: :optional, ssl: :optional]

  defp elixirc_paths(:test), do: ["lib", "test/support"]
  defp elixirc_paths(_env), do: ["lib"]

  # The guides are those of the Rust documentation, too (`tiebeam_node::guide`), where their code is compiled.
  defp docs do
    guides =
      for name <- ~w(getting_started existing_cluster choosing consistency operations programs migrating),
          do: "native/tiebeam_node/src/guide/#{name}.md"

    [
      main: "Tiebeam",
      source_ref: "v" <> @version,
      extras: ["README.md", "CHANGELOG.md" | guides],
      groups_for_extras: [Guides: guides]
    ]
  end

  defp package do
    [
      licenses: ["Apache-2.0", "MIT"],
      links: %{"GitHub" => @source},
      # The whole workspace: cargo builds the native library where the package is used.
      files: ~w(lib mix.exs Cargo.toml Cargo.lock native README.md CHANGELOG.md LICENSE .formatter.exs),
      exclude_patterns: [~r"native/.*/target"]
    ]
  end
end
