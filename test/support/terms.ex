defmodule Support.Terms do
  @moduledoc "Terms that cannot be written down: identifiers of any node, old spellings, deep lists."

  @doc "A pid of any node."
  def pid(node, id, serial, creation) do
    :erlang.binary_to_term(<<131, 88, atom(node)::binary, id::32, serial::32, creation::32>>)
  end

  def port(node, id, creation),
    do: :erlang.binary_to_term(<<131, 120, atom(node)::binary, id::64, creation::32>>)

  def reference(node, creation, words) do
    ids = for word <- words, into: "", do: <<word::32>>
    :erlang.binary_to_term(<<131, 90, length(words)::16, atom(node)::binary, creation::32, ids::binary>>)
  end

  @doc "The creation of the node that made this pid."
  def creation(pid) do
    encoded = encode(pid)
    <<creation::32>> = binary_part(encoded, byte_size(encoded), -4)
    creation
  end

  @doc "The same pid, as another incarnation of its node would have made it."
  def stale(pid) do
    encoded = encode(pid)
    <<creation::32>> = binary_part(encoded, byte_size(encoded), -4)
    head = binary_part(encoded, 0, byte_size(encoded) - 4)
    :erlang.binary_to_term(<<head::binary, creation - 1::32>>)
  end

  @doc "The external term as distribution writes it, version byte included."
  def encode(term), do: :erlang.term_to_binary(term, minor_version: 2)

  @doc "A list inside a list, `depth` times."
  def nested(depth), do: Enum.reduce(1..depth, [], fn _, inner -> [inner] end)

  defp atom(atom) do
    <<131, encoded::binary>> = encode(atom)
    encoded
  end
end
