defmodule Tiebeam.Discovery.Name do
  @moduledoc false
  # Names of nodes, as strings: what others say makes no atoms. Pure.

  # A longer one crashes the acceptor of OTP 25.
  @max 255

  @doc """
  The name of a node as a string, if it is one: `alive@host`, as OTP accepts it from a peer.

      iex> Tiebeam.Discovery.Name.parse(:"app@10.0.0.5")
      {:ok, "app@10.0.0.5"}
      iex> for name <- ["app@fd00::5", "app", "@h", "a@", "a@b@c", "a b@h", "a@h h", 1], do: Tiebeam.Discovery.Name.parse(name)
      [{:ok, "app@fd00::5"}, :error, :error, :error, :error, :error, :error, :error]
      iex> Tiebeam.Discovery.Name.parse("a@" <> String.duplicate("h", 254))
      :error
  """
  @spec parse(term) :: {:ok, String.t()} | :error
  def parse(name) when is_atom(name), do: name |> Atom.to_string() |> parse()

  def parse(name) when is_binary(name) and byte_size(name) <= @max do
    if name =~ ~r/\A[A-Za-z0-9_-]+@[!-?A-~]+\z/, do: {:ok, name}, else: :error
  end

  def parse(_other), do: :error

  @doc """
  The name before the `@` of this node.
  """
  @spec own() :: String.t()
  def own, do: node() |> Atom.to_string() |> String.split("@") |> hd()

  @doc """
  `basename@address`, as `:inet.ntoa/1` writes it: names compare by their bytes.

      iex> for address <- [{10, 0, 0, 5}, {0xfdaa, 0, 0, 1, 0, 0, 0, 2}], do: Tiebeam.Discovery.Name.at_address("app", address)
      ["app@10.0.0.5", "app@fdaa:0:0:1::2"]
  """
  @spec at_address(String.t(), :inet.ip_address()) :: String.t()
  def at_address(basename, address), do: "#{basename}@#{:inet.ntoa(address)}"

  @doc """
  `basename@host`, without the dot that ends a full domain name.

      iex> Tiebeam.Discovery.Name.at_host("app", "a.example.")
      "app@a.example"
  """
  @spec at_host(String.t(), String.t()) :: String.t()
  def at_host(basename, host), do: "#{basename}@#{String.trim_trailing(host, ".")}"

  @doc """
  The name of a pod by its address, as Kubernetes' DNS has it.

      iex> Tiebeam.Discovery.Name.pod_host({10, 0, 0, 5}, "prod", "cluster.local")
      "10-0-0-5.prod.pod.cluster.local"
      iex> Tiebeam.Discovery.Name.pod_host({0xfd00, 0, 0, 0, 0, 0, 0, 5}, "prod", "k.example.")
      "fd00--5.prod.pod.k.example"
  """
  @spec pod_host(:inet.ip_address(), String.t(), String.t()) :: String.t()
  def pod_host(address, namespace, domain) do
    dashed = "#{:inet.ntoa(address)}" |> String.replace([".", ":"], "-")
    "#{dashed}.#{namespace}.pod.#{String.trim_trailing(domain, ".")}"
  end

  @doc """
  Whether the name before the `@` is meant: `app` is that name, `app*` all that begin so.

      iex> for {pattern, alive} <- [{"app", "app"}, {"app", "app1"}, {"app*", "app1"}, {"app*", "ap"}, {"*", "x"}],
      ...>     do: Tiebeam.Discovery.Name.matches?(pattern, alive)
      [true, false, true, false, true]
  """
  @spec matches?(String.t(), String.t()) :: boolean
  def matches?(pattern, alive) do
    case String.split_at(pattern, -1) do
      {prefix, "*"} -> String.starts_with?(alive, prefix)
      _exact -> alive == pattern
    end
  end

  @doc "Whether it can stand before the `@`, or is `nil`: the node's own."
  @spec basename?(term) :: boolean
  def basename?(nil), do: true
  def basename?(basename) when is_binary(basename), do: parse(basename <> "@host") != :error
  def basename?(_other), do: false
end
